"""Finish: compare what was planned with what ended well."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import psycopg

from venue_analytics.harness import dead_letters, effects, history
from venue_analytics.harness.errors import TransientError
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.housekeeping import close_left_running, undone_units
from venue_analytics.harness.job import Job, Outcome
from venue_analytics.harness.leases import Leases

log = logging.getLogger(__name__)

#: A process that has been told to stop may need this long to report it: Airflow kills after five.
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
    """Close what dead processes of this run left open, and store how the run ended.

    A unit that has not ended well in the current round of its batch gets a dead letter.

    Args:
        connection: of the jobs' role, not in a transaction.
        leases: of the job.
        job: the job.
        run: as planned.
        failed_batches: batches whose task did not succeed, as Airflow reports: one that never
            began leaves no trace of its own, and one that was cleared and then died at once
            leaves the old one.
        stopping: how long processes that are still at work are waited for.

    Returns:
        One line for each unit that has not ended well; none means a good run.
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
        undone: list[dead_letters.Undone] = []
        for batch in history.load_batches(connection, run):
            of_batch = list(undone_units(job, run, batch, attempts))
            undone += of_batch
            unfinished += [f"{unit.name}: {reason}" for _, unit, _, reason in of_batch]
            if batch.number in failed_batches and not of_batch:
                done = f"its {job.unit.plural} are done"
                unfinished.append(f"{batch.label}: its task failed, though {done}")
        dead_letters.write_units(connection, job, undone)
        if not run.dry_run:
            effects.write_abandoned(connection, job.name)
        outcome = Outcome.FAILED if unfinished else Outcome.SUCCEEDED
        history.end_run(connection, run, outcome)
        if not job.keeps_every_success and not run.dry_run:
            history.forget_successes(connection, job.name)
    ended = Counter(str(attempt.outcome) for attempt in attempts.values())
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(ended.items()))
    log.info("%s: %s", job.unit.plural, counts or "none to do")
    return unfinished
