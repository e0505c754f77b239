"""Housekeeping: close in history what dead processes have left open."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import psycopg

from venue_analytics.database.statements import statement
from venue_analytics.harness import dead_letters, history
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.history import Attempt, PlannedRun, RunKey
from venue_analytics.harness.job import Job, Outcome
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.moments import format_moment

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
        TransientError: Redis does not answer, so nobody knows who is alive.
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
    for row, unit_id, token, deployment, run_id, batch, try_number in rows:
        holder = leases.holder(unit_id)
        if holder is not None and holder.is_attempt(deployment, run_id, batch, try_number):
            at_work += 1
            continue
        try:
            close_dead(connection, job, unit_id, token, row)
        except psycopg.errors.LockNotAvailable:
            log.warning("unit %s: its last transaction is still open; left as it is", unit_id)
            at_work += 1
    return at_work


def close_dead(
    connection: psycopg.Connection, job: str, unit_id: Any, token: int, row: int
) -> None:
    """Shut a dead attempt out and close its row: one transaction.

    The fence is raised only where it still has the row's token: a living attempt that has drawn a
    newer one is not robbed.
    """
    with connection.transaction():
        connection.execute(
            statement(__package__, "raise_fence"),
            {"job": job, "unit_id": unit_id, "token": token},
        )
        connection.execute(statement(__package__, "close_left_running"), {"id": row})


def undone_units(
    job: Job[Any], run: PlannedRun, batch: Batch, attempts: Mapping[UUID, Attempt]
) -> Iterator[dead_letters.Undone]:
    """Yield the units of a batch that have not ended well, each with the reason.

    Args:
        job: the job.
        run: as planned.
        batch: of the run.
        attempts: of the run, as `history.last_attempts` returns them.
    """
    for unit in batch.units:
        attempt = attempts.get(unit.id)
        if attempt is None:
            # a success that history does not keep any more is known by its batch's good end
            if job.keeps_every_success or not batch.ended_well:
                yield run, unit, None, "it was never begun"
        elif not attempt.ended_well:
            error = attempt.error or "still at work, or its process was killed"
            yield run, unit, attempt, error


def end_runs_left_open(
    connection: psycopg.Connection, job: Job[Any], runs: list[PlannedRun]
) -> list[str]:
    """End in history runs that are over and never had their finish: a timeout, a killed process.

    Their units that have not ended well get a dead letter. A run whose units are all done has ended
    well: somebody has cleared its batches without its finish. A dry run has left nothing undone.

    Returns:
        One line a run that has left units undone, for the next summary.
    """
    lines = []
    undone: list[dead_letters.Undone] = []
    for run in runs:
        if run.dry_run:
            history.end_run(connection, run, Outcome.FAILED)
            continue
        attempts = history.last_attempts(connection, run)
        of_run = [
            one
            for batch in history.load_batches(connection, run)
            for one in undone_units(job, run, batch, attempts)
        ]
        undone += of_run
        history.end_run(connection, run, Outcome.FAILED if of_run else Outcome.SUCCEEDED)
        if of_run:
            names = ", ".join(unit.name for _, unit, _, _ in of_run)
            lines.append(
                f"run {run.run_id} as of {format_moment(run.as_of)} ended without its finish; "
                f"not done: {names}"
            )
    dead_letters.write_units(connection, job, undone)
    return lines
