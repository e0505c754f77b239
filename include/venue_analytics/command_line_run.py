"""Run a job without Airflow: plan, every batch in turn, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from venue_analytics.harness import Job, JobSettings, Unit, history
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.failures import describe
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.interrupts import stopped_by_sigterm
from venue_analytics.harness.leases import RENEWAL, Holder, LeaseKeeper, Leases
from venue_analytics.harness.plan import COMMAND_LINE, plan_run
from venue_analytics.harness.process import Listener, process_batch
from venue_analytics.harness.request import RunRequest

#: Called with the number of units; with the name and outcome of each unit when it ends.
Show = Callable[[int, str | None, str], None]
#: How long to wait for a restarting database.
RESTART = timedelta(seconds=30)


def run_job(
    connect: Callable[[], psycopg.Connection],
    leases: Leases,
    job: Job[Any],
    settings: JobSettings,
    request: RunRequest,
    show: Show,
    on_wait: Callable[[Unit, str], None],
) -> tuple[PlannedRun, list[str]]:
    """Run a job over its units in this process.

    Each call is a new run with one try per unit; failed units are not retried.

    Args:
        connect: opens a connection with the jobs' role.
        leases: the leases of the job.
        job: the job.
        settings: the settings of the run.
        request: the parameters of the run; the default as_of is the database's now().
        show: reports progress.
        on_wait: reports that another process holds a unit.

    Returns:
        The run, and a line for each unit that did not end well.
    """
    own = uuid4()
    with connect() as connection:
        (now,) = connection.execute("SELECT now()").fetchone() or (datetime.now(UTC),)
    with stopped_by_sigterm(), _alive(leases, own):
        with connect() as connection:
            run = plan_run(
                connection,
                leases,
                job,
                RunKey(own, job.name, f"{COMMAND_LINE}{own}"),
                settings,
                request,
                as_of=request.as_of or now,
                alone=True,
            )
            batches = history.load_batches(connection, run)
        units = sum(len(batch.units) for batch in batches)
        show(units, None, "")
        listener = Listener(
            on_unit=lambda unit, ended: show(units, unit.name, ended), on_wait=on_wait
        )
        try:
            for batch in batches:
                try:
                    process_batch(
                        lambda: _connect_patiently(connect),
                        leases,
                        job,
                        BatchTry.of(job, run, batch),
                        listener=listener,
                    )
                except psycopg.OperationalError as error:
                    show(units, batch.label, f"failed: {describe(error)}")
                    break
        finally:
            # end an interrupted run in history too
            with _connect_patiently(connect) as connection:
                unfinished = finish_run(connection, leases, job, run)
    return run, unfinished


@contextmanager
def _alive(leases: Leases, own: UUID) -> Iterator[None]:
    """Hold a lease of the run itself, so that no other plan ends the run as dead."""
    with LeaseKeeper(leases, every=RENEWAL) as keeper:
        keeper.take({own: Holder(own, f"{COMMAND_LINE}{own}", -1, 1, datetime.now(UTC), "", own)})
        yield


def _connect_patiently(connect: Callable[[], psycopg.Connection]) -> psycopg.Connection:
    until = time.monotonic() + RESTART.total_seconds()
    while True:
        try:
            return connect()
        except psycopg.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.5)
