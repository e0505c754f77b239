"""Housekeeping: end in history what dead processes have left open."""

from __future__ import annotations

import logging
from typing import Any

import psycopg

from venue_analytics.database.statements import statement
from venue_analytics.harness import dead_letters, history
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.job import Job, Outcome
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.request import moment

log = logging.getLogger(__name__)


def close_left_running(
    connection: psycopg.Connection, leases: Leases, job: str, key: RunKey | None = None
) -> int:
    """Close the attempts that history has as running, though nobody is at work on them.

    An attempt that holds its lease is left alone: a backfill beside this run, or another
    deployment, may be alive. Any other is shut out by the fence as its row is closed, in one
    transaction: it may be asleep, and must not commit on waking.

    Args:
        connection: of the jobs' role, not in a transaction.
        leases: of the job.
        job: the job's name.
        key: of the one run to look at; None means all.

    Returns:
        How many are still at work.

    Raises:
        TransientError: Redis cannot be asked who is alive.
    """
    rows = connection.execute(
        statement(__package__, "left_running"),
        {
            "job": job,
            "deployment": key.deployment if key else None,
            "run_id": key.run_id if key else None,
        },
    ).fetchall()
    at_work = 0
    for row, venue_id, token, deployment, run_id, batch, try_number in rows:
        holder = leases.holder(venue_id)
        if holder is not None and holder.is_attempt(deployment, run_id, batch, try_number):
            at_work += 1
            continue
        try:
            close_dead(connection, job, venue_id, token, row)
        except psycopg.errors.LockNotAvailable:
            log.warning("venue %s: its last transaction is still open; left as it is", venue_id)
            at_work += 1
    return at_work


def close_dead(
    connection: psycopg.Connection, job: str, venue_id: Any, token: int, row: int
) -> None:
    """Shut a dead attempt out and close its row: one transaction.

    The fence is raised only where it still has the row's token: a living attempt that has drawn a
    newer one is not robbed.
    """
    with connection.transaction():
        connection.execute(
            statement(__package__, "raise_fence"),
            {"job": job, "venue_id": venue_id, "token": token},
        )
        connection.execute(statement(__package__, "close_left_running"), {"id": row})


def end_runs_left_open(
    connection: psycopg.Connection, job: Job[Any], runs: list[PlannedRun]
) -> list[str]:
    """End in history runs that are over and never had their finish: a timeout, a killed process.

    Their venues that have not ended well get a dead letter. One whose venues are all done has ended
    well: somebody has cleared its batches without its finish. A dry run has left nothing undone.

    Returns:
        One line a run that has left venues undone, for the next summary.
    """
    lines = []
    undone: list[dead_letters.Undone] = []
    for run in runs:
        if run.dry_run:
            history.finish_run(connection, run, Outcome.FAILED)
            continue
        attempts = history.last_attempts(connection, run)
        names = []
        for batch in history.load_batches(connection, run):
            for venue in batch.venues:
                attempt = attempts.get(venue.venue_id)
                if attempt is None or not attempt.ended_well:
                    names.append(venue.name)
                    error = (attempt and attempt.error) or "its run ended before it began"
                    undone.append((run, venue, attempt, error))
        history.finish_run(connection, run, Outcome.FAILED if names else Outcome.SUCCEEDED)
        if names:
            lines.append(
                f"run {run.run_id} as of {moment(run.as_of)} ended without its finish; "
                f"not done: {', '.join(names)}"
            )
    dead_letters.write_venues(connection, job, undone)
    return lines
