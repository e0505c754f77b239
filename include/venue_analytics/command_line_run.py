"""A run without Airflow: plan, every batch in turn, finish."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg

from venue_analytics.harness import Job, JobSettings, Venue, history
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.plan import COMMAND_LINE, plan_run
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.request import RunRequest

#: Called with the number of venues, and with a venue's name and how it ended once it has.
Tell = Callable[[int, str | None, str], None]


def run_job(
    connect: Callable[[], psycopg.Connection],
    leases: Leases,
    job: Job[Any],
    settings: JobSettings,
    request: RunRequest,
    tell: Tell,
) -> tuple[PlannedRun, list[str]]:
    """Run a job over its venues, here and now.

    It is a run of its own, always a first try, and takes nothing over.

    Args:
        connect: opens a connection of the jobs' role.
        leases: of the job.
        job: the job.
        settings: of the run.
        request: what is asked of it; without an as_of, the database's now.
        tell: is told how it goes.

    Returns:
        The run, and a line for each venue that has not ended well.
    """
    own = uuid4()
    with connect() as connection:
        (now,) = connection.execute("SELECT now()").fetchone() or (datetime.now(UTC),)
        run = plan_run(
            connection,
            leases,
            job,
            RunKey(own, job.name, f"{COMMAND_LINE}{own}"),
            settings,
            request,
            as_of=request.as_of or now,
        )
        batches = history.load_batches(connection, run)
    venues = sum(len(batch.venues) for batch in batches)
    tell(venues, None, "")

    def told(venue: Venue, ended: str) -> None:
        tell(venues, venue.name, ended)

    try:
        for batch in batches:
            process_batch(connect, leases, job, run, batch, settings, on_venue=told)
    finally:
        # an interrupted run ends in history too
        with connect() as connection:
            unfinished = finish_run(connection, leases, job, run)
    return run, unfinished
