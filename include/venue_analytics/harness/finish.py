"""Finish: compare what was planned with what ended well."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import psycopg

from venue_analytics.harness import dead_letters, history
from venue_analytics.harness.errors import TransientError
from venue_analytics.harness.history import Attempt, PlannedRun
from venue_analytics.harness.housekeeping import close_left_running
from venue_analytics.harness.job import Job, Outcome, Venue
from venue_analytics.harness.leases import Leases

log = logging.getLogger(__name__)

#: A process that has been told to stop may need this long to note it: Airflow kills after five.
STOPPING = timedelta(seconds=8)


def finish_run(
    connection: psycopg.Connection,
    leases: Leases,
    job: Job[Any],
    run: PlannedRun,
    *,
    failed_batches: Collection[int] = (),
    stopping: timedelta = STOPPING,
) -> list[str]:
    """Close what dead processes of this run left open, and note how the run ended.

    A venue that has not ended well in the present round of its batch gets a dead letter.

    Args:
        connection: of the jobs' role, not in a transaction.
        leases: of the job.
        job: the job.
        run: as planned.
        failed_batches: batches whose task did not succeed, as Airflow says: one that never
            began leaves no trace of its own, and one that was cleared and then died at once
            leaves the old one.
        stopping: how long processes that are still at work are waited for.

    Returns:
        One line for each venue that has not ended well; none means a good run.
    """
    try:
        until = time.monotonic() + stopping.total_seconds()
        while close_left_running(connection, leases, job.name, run.key):
            if time.monotonic() >= until:
                break
            time.sleep(0.25)
    except TransientError as error:
        # what is still running counts as not done: the run ends red
        log.warning("whether anybody is still at work is unknown: %s", error)
    with connection.transaction():
        attempts = history.last_attempts(connection, run)
        unfinished: list[str] = []
        undone: list[tuple[Venue, Attempt | None, str]] = []
        for batch in history.load_batches(connection, run):
            before = len(unfinished)
            for venue in batch.venues:
                attempt = attempts.get(venue.venue_id)
                if attempt is None:
                    reason = "it was never begun"
                elif not attempt.ended_well:
                    reason = attempt.error or "still at work, or its process was killed"
                else:
                    continue
                unfinished.append(f"{venue.name}: {reason}")
                undone.append((venue, attempt, reason))
            if batch.number in failed_batches and len(unfinished) == before:
                unfinished.append(f"{batch.label}: its task failed, though its venues are done")
        dead_letters.write_venues(connection, job, [(run, *one) for one in undone])
        outcome = Outcome.FAILED if unfinished else Outcome.SUCCEEDED
        history.finish_run(connection, run, outcome)
    ended = Counter(str(attempt.outcome) for attempt in attempts.values())
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(ended.items()))
    log.info("venues: %s", counts or "none to do")
    return unfinished
