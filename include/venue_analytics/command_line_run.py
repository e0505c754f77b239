"""A run without Airflow: plan, every batch in turn, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from venue_analytics.harness import Job, JobSettings, Venue, history
from venue_analytics.harness.failures import describe
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.interrupts import stopped_by_sigterm
from venue_analytics.harness.leases import RENEWAL, Holder, LeaseKeeper, Leases
from venue_analytics.harness.plan import COMMAND_LINE, plan_run
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.request import RunRequest

#: Called with the number of venues, and with a venue's name and how it ended once it has.
Tell = Callable[[int, str | None, str], None]
#: How long a database that restarts is waited for.
RESTART = timedelta(seconds=30)


def run_job(
    connect: Callable[[], psycopg.Connection],
    leases: Leases,
    job: Job[Any],
    settings: JobSettings,
    request: RunRequest,
    tell: Tell,
    on_wait: Callable[[Venue, str], None] | None = None,
) -> tuple[PlannedRun, list[str]]:
    """Run a job over its venues, here and now.

    It is a run of its own, always a first try, and takes nothing over; what fails is not tried
    again.

    Args:
        connect: opens a connection of the jobs' role.
        leases: of the job.
        job: the job.
        settings: of the run.
        request: what is asked of it; without an as_of, the database's now.
        tell: is told how it goes.
        on_wait: is told of a venue that somebody else is at work on.

    Returns:
        The run, and a line for each venue that has not ended well.
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
        venues = sum(len(batch.venues) for batch in batches)
        tell(venues, None, "")

        def told(venue: Venue, ended: str) -> None:
            tell(venues, venue.name, ended)

        try:
            for batch in batches:
                try:
                    process_batch(
                        lambda: _connect_patiently(connect),
                        leases,
                        job,
                        run,
                        batch,
                        settings,
                        on_venue=told,
                        on_wait=on_wait,
                    )
                except psycopg.OperationalError as error:
                    tell(venues, batch.label, f"failed: {describe(error)}")
                    break
        finally:
            # an interrupted run ends in history too
            with _connect_patiently(connect) as connection:
                unfinished = finish_run(connection, leases, job, run)
    return run, unfinished


@contextmanager
def _alive(leases: Leases, own: UUID) -> Iterator[None]:
    """Show by a lease of the run's own that it has not died: else the next plan ends it."""
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
