"""A venue's steps, one transaction after the other, from where its work was left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import psycopg

from venue_analytics.harness import dead_letters
from venue_analytics.harness.attempts import (
    VenueAttempt,
    begin,
    close,
    end_step,
    enter,
    open_rows,
    standing,
)
from venue_analytics.harness.errors import PermanentError
from venue_analytics.harness.interrupts import cancelled_when_stopped
from venue_analytics.harness.job import Again, Job, Outcome, VenueResult, VenueRun
from venue_analytics.harness.standing import Checkpoint
from venue_analytics.harness.tenant import one_moment, set_tenant


def do_steps(
    connection: psycopg.Connection,
    job: Job[Any],
    attempt: VenueAttempt,
    check_lease: Callable[[], None],
) -> VenueResult:
    """Do what is left of a venue.

    Each transaction holds the fence, and commits a step's data with the checkpoint; the last one
    closes the attempt in history instead.

    Args:
        connection: not in a transaction.
        job: the job.
        attempt: with its token drawn and its row opened.
        check_lease: raises LeaseLostError when no further transaction may be opened.

    Raises:
        LeaseLostError: the lease is lost.
        psycopg.Error: with SQLSTATE VA001, if another attempt has drawn a token since.
    """
    progress: Checkpoint | None = None
    while True:
        check_lease()
        with one_moment(connection), cancelled_when_stopped(connection):
            enter(connection, attempt)
            if progress is None:
                found = begin(connection, job, attempt)
                if isinstance(found, str):
                    result = VenueResult(Outcome.SKIPPED, reason=found)
                    close(connection, job, attempt, result)
                    return result
                progress = found
            end = _do_step(connection, job, attempt, progress)
            if isinstance(end, VenueResult):
                close(connection, job, attempt, end)
                return end
            if isinstance(end, Again):
                progress = replace(progress, cursor=end.cursor)
            else:
                progress = replace(progress, step=progress.step + 1, cursor=None)
            end_step(connection, attempt, progress)


def _do_step(
    connection: psycopg.Connection, job: Job[Any], attempt: VenueAttempt, progress: Checkpoint
) -> VenueResult | Again | None:
    venue = attempt.venue
    if venue.former_tenant_id is not None and progress.step == 0:
        set_tenant(connection, venue.former_tenant_id)
        job.remove(connection, venue.former_tenant_id, venue.venue_id)
        set_tenant(connection, venue.tenant_id)
    if venue.gone:
        removed = job.remove(connection, venue.tenant_id, venue.venue_id)
        return VenueResult(reason="venue gone: its rows removed", rows_removed=removed)

    def set_aside(key: str, payload: Mapping[str, Any], error: Exception) -> None:
        dead_letters.write_item(connection, attempt.run, venue, key, payload, error)

    end = job.steps[progress.step](
        VenueRun(
            connection,
            venue,
            attempt.settings,
            attempt.work.as_of,
            attempt.work.force,
            set_aside,
            progress.cursor,
        )
    )
    is_last = progress.step == len(job.steps) - 1
    if isinstance(end, VenueResult) != is_last and not isinstance(end, Again):
        raise TypeError(
            f"step {progress.step + 1} of {len(job.steps)} of {job.name} gave "
            f"{type(end).__name__}: the last step gives a VenueResult, the others None"
        )
    return end


def preview_venue(
    connection: psycopg.Connection, job: Job[Any], attempt: VenueAttempt
) -> VenueResult:
    """Have the job say what would change; it ends skipped: nothing was done.

    It needs no lease and no token, and keeps nobody from a venue: all that it writes is its row in
    history, when it has ended.

    Raises:
        PermanentError: the job has no dry run.
        LeaseLostError: a later plan of the run has taken over.
    """
    if job.preview is None:
        raise PermanentError(f"{job.name} has no dry run")
    venue = attempt.venue

    def set_aside(_key: str, _payload: Mapping[str, Any], _error: Exception) -> None:
        """Note nothing: it would be a change."""

    with one_moment(connection), cancelled_when_stopped(connection):
        set_tenant(connection, venue.tenant_id)
        standing(connection, job, attempt)
        if venue.gone:
            reason = "dry run: venue gone, its rows would be removed"
            result = VenueResult(Outcome.SKIPPED, reason=reason)
        else:
            run = VenueRun(
                connection, venue, attempt.settings, attempt.work.as_of, False, set_aside
            )
            reason = "dry run: nothing was written"
            result = replace(job.preview(run), outcome=Outcome.SKIPPED, reason=reason)
        open_rows(connection, [attempt])
        close(connection, job, attempt, result)
    return result
