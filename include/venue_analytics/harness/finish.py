"""Finish: compare what was planned with what ended well."""

from __future__ import annotations

from collections.abc import Collection

import psycopg

from venue_analytics.harness import history
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.job import Outcome


def finish_run(
    connection: psycopg.Connection, run: PlannedRun, *, failed_batches: Collection[int] = ()
) -> list[str]:
    """Note how a run ended, once none of its tasks is at work any more.

    Args:
        connection: of the jobs' role.
        run: as planned.
        failed_batches: batches whose task did not succeed, as Airflow says: one that never
            began leaves no trace of its own, and one that was cleared and then died at once
            leaves the old one.

    Returns:
        One line for each venue that has not ended well; none means a good run.
    """
    with connection.transaction():
        history.close_abandoned(connection, run)
        attempts = history.last_attempts(connection, run)
        unfinished: list[str] = []
        for batch in history.load_batches(connection, run):
            before = len(unfinished)
            for venue in batch.venues:
                attempt = attempts.get(venue.venue_id)
                if attempt is None:
                    unfinished.append(f"{venue.name}: its task never began")
                elif not attempt.ended_well:
                    unfinished.append(f"{venue.name}: {attempt.error}")
            if batch.number in failed_batches and len(unfinished) == before:
                unfinished.append(f"{batch.label}: its task failed, though its venues are done")
        outcome = Outcome.FAILED if unfinished else Outcome.SUCCEEDED
        history.finish_run(connection, run, outcome)
    return unfinished
