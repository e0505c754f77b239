"""Process: a batch's venues one after the other, each on its own, none stopping another."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from venue_analytics.harness import history
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.database_errors import in_words
from venue_analytics.harness.errors import AnalyticsError, PermanentError, TransientError
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.job import Job, Outcome, Venue, VenueResult, VenueRun
from venue_analytics.harness.settings import JobSettings
from venue_analytics.harness.tenant import tenant_transaction

log = logging.getLogger(__name__)

Connect = Callable[[], psycopg.Connection]


@dataclass(frozen=True)
class VenueFailure:
    """A venue that could not be done, and why."""

    venue: Venue
    error: Exception

    @property
    def permanent(self) -> bool:
        """Whether trying again changes nothing."""
        return isinstance(self.error, PermanentError)

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.venue.name}: {describe(self.error)}"


def process_batch(
    connect: Connect,
    job: Job[Any],
    run: PlannedRun,
    batch: Batch,
    settings: JobSettings,
    *,
    on_venue: Callable[[Venue, str], None] | None = None,
) -> list[VenueFailure]:
    """Do what is left of a batch; a batch that is wholly done is done again.

    That is what a clear means in Airflow: of a failed batch, the venues that failed; of a good
    one, all of it.

    Args:
        connect: opens a connection of the jobs' role.
        job: the job.
        run: as planned.
        batch: whose venues to do.
        settings: as plan stored them.
        on_venue: called when a venue has ended, with how, in words.

    Returns:
        The venues that failed.
    """
    failures: list[VenueFailure] = []
    connection = connect()
    try:
        attempts = history.last_attempts(connection, run)
        done = {venue_id for venue_id, attempt in attempts.items() if attempt.ended_well}
        left = [venue for venue in batch.venues if venue.venue_id not in done] or batch.venues
        for venue in left:
            if connection.closed:
                connection = connect()
            try:
                own = settings.for_venue(venue.venue_id)
                attempt = history.open_venue_run(connection, run, batch.number, venue, own)
                try:
                    told = _process_venue(connection, job, run, attempt, venue, own)
                except Exception as error:
                    # the connection may be what failed
                    connection = connect() if connection.closed else connection
                    failed = VenueResult(Outcome.FAILED)
                    history.close_venue_run(connection, attempt, failed, describe(error))
                    raise
            except Exception as error:
                fault = in_words(error) if isinstance(error, psycopg.Error) else error
                told = f"failed: {describe(fault)}"
                log.error("%s %s", venue.name, told, exc_info=not isinstance(fault, AnalyticsError))
                failures.append(VenueFailure(venue, fault))
            if on_venue is not None:
                on_venue(venue, told)
    finally:
        connection.close()
    return failures


def _process_venue(
    connection: psycopg.Connection,
    job: Job[Any],
    run: PlannedRun,
    attempt: int,
    venue: Venue,
    settings: JobSettings,
) -> str:
    """Do one venue: its data and its end in history commit together; tells how it ended."""
    with connection.transaction():
        if venue.former_tenant_id is not None:
            with tenant_transaction(connection, venue.former_tenant_id):
                job.remove(connection, venue.former_tenant_id, venue.venue_id)
        with tenant_transaction(connection, venue.tenant_id):
            if venue.gone:
                removed = job.remove(connection, venue.tenant_id, venue.venue_id)
                result = VenueResult(reason="venue gone: its rows removed", rows_removed=removed)
            else:
                result = job.process(VenueRun(connection, venue, settings, run.as_of, run.force))
            if not history.close_venue_run(connection, attempt, result):
                raise TransientError(
                    "the run was finished while this venue was at work: nothing of it was kept"
                )
    told = f"{result.outcome}: {result.reason or _rows(result)}"
    log.info("%s %s", venue.name, told)
    return told


def _rows(result: VenueResult) -> str:
    left_out = "".join(f", {count:,} {kind}" for kind, count in sorted(result.left_out.items()))
    return (
        f"{result.rows_read:,} rows read, {result.rows_written:,} written, "
        f"{result.rows_unchanged:,} unchanged, {result.rows_removed:,} removed{left_out}"
    )


def describe(error: Exception) -> str:
    """Say what went wrong in one line, without a value of anybody's row."""
    if isinstance(error, psycopg.Error):
        error = in_words(error)
    text = " ".join(str(error).split())
    return text if isinstance(error, AnalyticsError) else f"{type(error).__name__}: {text}"
