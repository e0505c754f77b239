"""Plan: what a run is to do, settled once and stored before any venue is touched."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import psycopg

from venue_analytics.harness import history
from venue_analytics.harness.batches import pack
from venue_analytics.harness.errors import PermanentError, TransientError
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.job import Job
from venue_analytics.harness.request import RunRequest, moment
from venue_analytics.harness.settings import JobSettings
from venue_analytics.harness.venues import choose_venues, find_venues, unknown_in_settings

log = logging.getLogger(__name__)

#: The scheduler's clock, which dates a manual run, may be this much ahead of the database's.
CLOCK_TOLERANCE = timedelta(minutes=1)


def plan_run(
    connection: psycopg.Connection,
    job: Job[Any],
    key: RunKey,
    settings: JobSettings,
    request: RunRequest,
    *,
    as_of: datetime,
) -> PlannedRun:
    """Settle what a run does, and store it.

    Args:
        connection: of the jobs' role, not in a transaction.
        job: the job.
        key: names the run.
        settings: as read now; all tasks of the run use these.
        request: what was asked of this run.
        as_of: what its results are as of.

    Raises:
        PermanentError: as_of lies in the future, a venue was asked for that is not there, or the
            source lists no venue though results of some stand.
        TransientError: as_of lies less than a minute ahead: clocks differ.
    """
    (now,) = connection.execute("SELECT now()").fetchone() or (as_of,)
    if now < as_of <= now + CLOCK_TOLERANCE:
        raise TransientError(
            f"as_of = {moment(as_of)} lies just ahead of the database's clock ({moment(now)})"
        )
    if as_of > now:
        raise PermanentError(
            f"as_of = {moment(as_of)} lies in the future; allowed: up to now ({moment(now)})"
        )
    found = find_venues(connection, job)
    venues = choose_venues(found, settings, request)
    faults = found.faults + unknown_in_settings(found, settings)
    run = history.store_plan(
        connection,
        key,
        as_of=as_of,
        force=request.force,
        settings=settings.model_dump(mode="json"),
        source_faults=faults,
        batches=pack(venues, max_tasks=settings.max_tasks),
    )
    for fault in faults:
        log.warning(fault)
    log.info("%s as of %s: %d venues", job.name, moment(as_of), len(venues))
    return run
