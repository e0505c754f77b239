"""The moves of attempts at venues, each atomic: token, history row, enter, step's end, close.

A transaction on a group of venues is: BEGIN, `enter`, the job's statements, `end_step` or `close`,
COMMIT. Each move is one statement, however many venues there are.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness import dead_letters, groups
from venue_analytics.harness.database_errors import in_words
from venue_analytics.harness.errors import LeaseLostError, PermanentError
from venue_analytics.harness.failures import describe
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.job import Job, Outcome, Venue, VenueResult
from venue_analytics.harness.leases import Holder
from venue_analytics.harness.settings import JobSettings
from venue_analytics.harness.standing import Checkpoint, Done, Work, can_resume, reason_to_skip

TAKEN_OVER = "another attempt has taken over"


@dataclass(eq=False)
class VenueAttempt:
    """One attempt at one venue.

    Attributes:
        run: as planned.
        venue: the venue.
        settings: as they hold for it.
        work: what is to do.
        holder: what its lease says.
        clear_number: how often the run had been cleared when this try began.
        patience: how many times longer than others it may take before it is cut.
        seconds: what the steps that it has done took.
        token: its fencing token, once drawn.
        row: its row in history, once there.
        is_alone: whether it shares its transactions with no other venue.
        entered_at: when its first transaction began, by the database's clock.
        resumed: whether an earlier attempt had done some of its steps.
        progress: how far it has come; None before it has asked history.
    """

    run: PlannedRun
    venue: Venue
    settings: JobSettings
    work: Work
    holder: Holder
    clear_number: int = 0
    patience: int = 1
    seconds: float = 0.0
    token: int | None = None
    row: int | None = None
    is_alone: bool = False
    entered_at: datetime | None = None
    resumed: bool = False
    progress: Checkpoint | None = None

    def start_over(self) -> None:
        """Forget what the lease allowed: it is to be taken anew, and is another one."""
        self.token = self.row = self.progress = self.entered_at = None
        self.holder = replace(self.holder, process=uuid4())


def draw_tokens(connection: psycopg.Connection, job: str, attempts: Sequence[VenueAttempt]) -> None:
    """Draw each attempt's fencing token; from here on, older tokens write nothing.

    Raises:
        psycopg.errors.LockNotAvailable: a transaction on one of the venues goes on for too long.
    """
    rows = _execute(
        connection,
        "draw_tokens",
        {"job": job, "venue_ids": [attempt.venue.venue_id for attempt in attempts]},
    ).fetchall()
    tokens: dict[UUID, int] = dict(rows)
    for attempt in attempts:
        attempt.token = tokens[attempt.venue.venue_id]


def open_rows(connection: psycopg.Connection, attempts: Sequence[VenueAttempt]) -> None:
    """Note in history that these attempts, all of one batch, begin."""
    first = attempts[0]
    rows = _execute(
        connection,
        "open_venue_runs",
        {
            "run": first.run.id,
            "plan_number": first.run.plan_number,
            "batch": first.work.batch,
            "round": first.work.round,
            "try_number": first.holder.try_number,
            "clear_number": first.clear_number,
            "job": first.run.job,
            "as_of": first.work.as_of,
            "host": socket.gethostname(),
            "alone": len(attempts) == 1,
            "dry_run": first.run.dry_run,
            "venue_ids": [attempt.venue.venue_id for attempt in attempts],
            "tenant_ids": [attempt.venue.tenant_id for attempt in attempts],
            "gone": [attempt.venue.gone for attempt in attempts],
            "names": [attempt.venue.name for attempt in attempts],
            "rules_hashes": [attempt.work.rules_hash for attempt in attempts],
            "tokens": [attempt.token for attempt in attempts],
        },
    ).fetchall()
    ids: dict[UUID, int] = dict(rows)
    for attempt in attempts:
        attempt.row = ids[attempt.venue.venue_id]


def enter(
    connection: psycopg.Connection, attempts: Sequence[VenueAttempt], limit: timedelta | None = None
) -> set[UUID]:
    """Begin a transaction's work: its tenant is set, the fences of its venues are locked.

    Whatever holders of older tokens have committed is in sight, although the transaction sees the
    moment of its begin: they did so before these tokens were drawn, or never will.

    Args:
        connection: in a transaction that has done nothing yet.
        attempts: at venues of one tenant.
        limit: how long one of the transaction's statements may take; None means the session's.

    Returns:
        The venues whose token is not the newest: another attempt has taken over.

    Raises:
        LeaseLostError: a token was drawn while this waited for the fence of a single venue.
        psycopg.errors.SerializationFailure: the same of one of several venues.
    """
    names = {
        "job": attempts[0].run.job,
        "tenant_id": attempts[0].venue.tenant_id,
        "venue_ids": [attempt.venue.venue_id for attempt in attempts],
        "tokens": [attempt.token for attempt in attempts],
        "limit_ms": None if limit is None else round(limit.total_seconds() * 1000),
    }
    with _lost_if_single(attempts, TAKEN_OVER):
        return {venue_id for (venue_id,) in _execute(connection, "enter", names)}


def standing(
    connection: psycopg.Connection, job: Job[Any], attempts: Sequence[VenueAttempt]
) -> list[tuple[Done | None, Checkpoint | None]]:
    """Read what stands of each venue: its latest success, and unfinished work.

    Notes when it was asked, by the database's clock.

    Raises:
        LeaseLostError: the run has been planned anew: what an earlier plan asked for, a try that
            was cleared and lives on, has no say any more.
    """
    names = {
        "job": job.name,
        "venue_ids": [attempt.venue.venue_id for attempt in attempts],
        "run": attempts[0].run.id,
        "as_of": attempts[0].work.as_of,
        "keeps_every_date": job.keeps_every_date,
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(statement(__package__, "standing"), names, prepare=True)
        rows = {row["venue_id"]: row for row in cursor}
    return [_standing(attempt, rows[attempt.venue.venue_id]) for attempt in attempts]


def _standing(
    attempt: VenueAttempt, row: Mapping[str, Any]
) -> tuple[Done | None, Checkpoint | None]:
    attempt.entered_at = row["asked_at"]
    if row["planned_anew"]:
        raise LeaseLostError("a later plan of this run has taken over")
    done = checkpoint = None
    if row["done_as_of"] is not None:
        done = Done(
            row["done_as_of"],
            row["done_rules_hash"],
            row["done_by_run"],
            row["done_by_batch"],
            row["done_in_round"],
            row["done_for_plan"],
            row["done_for_tenant"] == attempt.venue.tenant_id
            and row["done_when_gone"] == attempt.venue.gone,
        )
    if row["begun_as_of"] is not None:
        checkpoint = Checkpoint(
            row["begun_as_of"],
            row["begun_rules_hash"],
            row["begun_round"],
            row["begun_plan_number"],
            row["begun_step"],
            row["begun_cursor"],
        )
    return done, checkpoint


def begin(
    connection: psycopg.Connection, job: Job[Any], attempts: Sequence[VenueAttempt]
) -> list[str | Checkpoint]:
    """Ask, in the first transaction after `enter`, what there is to do.

    Returns:
        For each attempt the reason why there is nothing, or from where to go on.
    """
    return [
        reason_to_skip(attempt.work, done, checkpoint) or _resume(connection, attempt, checkpoint)
        for attempt, (done, checkpoint) in zip(
            attempts, standing(connection, job, attempts), strict=True
        )
    ]


def _resume(
    connection: psycopg.Connection, attempt: VenueAttempt, checkpoint: Checkpoint | None
) -> Checkpoint:
    work = attempt.work
    attempt.resumed = can_resume(work, checkpoint)
    if checkpoint is None or not attempt.resumed:
        return Checkpoint(work.as_of, work.rules_hash, work.round, work.plan_number, 0, None)
    if checkpoint.plan_number > work.plan_number:
        names = {"id": attempt.row, "plan_number": checkpoint.plan_number}
        _execute(connection, "count_for_plan", names)
        return checkpoint
    return replace(checkpoint, plan_number=work.plan_number)


def end_step(
    connection: psycopg.Connection, attempts: Sequence[VenueAttempt], ends: Sequence[Checkpoint]
) -> None:
    """Note how far venues have come, in the transaction of the step's data; all as far."""
    first = ends[0]
    names = {
        "job": attempts[0].run.job,
        "venue_ids": [attempt.venue.venue_id for attempt in attempts],
        "plan_numbers": [end.plan_number for end in ends],
        "as_of": first.as_of,
        "rules_hash": first.rules_hash,
        "round": first.round,
        "step": first.step,
        "cursor": None if first.cursor is None else Jsonb(first.cursor),
    }
    _execute(connection, "store_checkpoint", names)


def close(
    connection: psycopg.Connection,
    job: Job[Any],
    attempts: Sequence[VenueAttempt],
    results: Sequence[VenueResult],
) -> None:
    """End attempts well, in the transaction of their last data: done, or nothing to do.

    A success forgets the checkpoint; any good end answers the venue's dead letters up to its as_of.
    Items were met again by an attempt that did every step, and went well or are no more; one that
    resumed has not looked at what an earlier attempt may have set aside. What the transaction took
    is shared among its venues by the rows that they read.

    Raises:
        LeaseLostError: the row of a venue, which it names, has been closed by somebody who took its
            attempt for dead; or, of a single venue, somebody has written to one of its letters
            since this transaction began.
        psycopg.errors.SerializationFailure: the same letter, of one of several venues.
    """
    rows_read = sum(result.rows_read + 1 for result in results)
    names = {
        "ends": Jsonb(
            [
                _end(attempt, result, share=(result.rows_read + 1) / rows_read)
                for attempt, result in zip(attempts, results, strict=True)
            ]
        ),
        "job": job.name,
        "as_of": attempts[0].work.as_of,
        "dry_run": attempts[0].run.dry_run,
        "key": dead_letters.venue_key(job, attempts[0].work.as_of),
    }
    with _lost_if_single(
        attempts, "its row in history was closed by another process, or one of its letters changed"
    ):
        ended = {row for (row,) in _execute(connection, "end_well", names)}
    for attempt in attempts:
        if attempt.row not in ended:
            raise LeaseLostError(
                "its row in history was closed by another process", venue_id=attempt.venue.venue_id
            )


def _end(attempt: VenueAttempt, result: VenueResult, *, share: float) -> dict[str, Any]:
    entered_at = attempt.entered_at and attempt.entered_at.isoformat()
    has_met_items = result.outcome is Outcome.SUCCEEDED and not attempt.resumed
    return {
        "id": attempt.row,
        "venue_id": str(attempt.venue.venue_id),
        "outcome": result.outcome,
        "reason": result.reason,
        "started_at": entered_at,
        "share": share,
        "seconds_before": attempt.seconds,
        "rows_read": result.rows_read,
        "rows_written": result.rows_written,
        "rows_unchanged": result.rows_unchanged,
        "rows_removed": result.rows_removed,
        "left_out": dict(result.left_out),
        "summary": dict(result.summary),
        "items_before": entered_at if has_met_items else None,
    }


def close_failed(
    connection: psycopg.Connection, attempts: Sequence[VenueAttempt], error: BaseException
) -> dict[int, VenueResult]:
    """Note in history that attempts failed; those that have no row yet get one.

    Returns:
        How those have ended, by row, that had ended well already: the answer to a COMMIT was lost.
        While the server is still at such a commit, this waits for its end.
    """
    if without := [attempt for attempt in attempts if attempt.row is None]:
        open_rows(connection, without)
    frames = traceback.format_tb(error.__traceback__)
    fault = in_words(error) if isinstance(error, psycopg.Error) else error
    names = {
        "ids": [attempt.row for attempt in attempts],
        "started_at": [attempt.entered_at for attempt in attempts],
        "permanent": isinstance(fault, PermanentError),
        "is_common": isinstance(error, Exception) and not groups.may_be_one_venues(error),
        "error_type": type(error).__name__,
        "error": describe(error),
        # where it happened; the values that it happened with may be somebody's
        "traceback": "".join(frames) or None,
    }
    closed = {row for (row,) in _execute(connection, "end_failed", names)}
    if not (others := [attempt.row for attempt in attempts if attempt.row not in closed]):
        return {}
    return {
        row: VenueResult(Outcome(outcome), *values)
        for row, outcome, *values in _execute(connection, "ended_well", {"ids": others})
    }


@contextmanager
def _lost_if_single(attempts: Sequence[VenueAttempt], message: str) -> Iterator[None]:
    """Name what a failed serialization means to a single venue; a group may be tried again."""
    try:
        yield
    except psycopg.errors.SerializationFailure:
        if len(attempts) > 1:
            raise
        raise LeaseLostError(message) from None


def _execute(
    connection: psycopg.Connection, name: LiteralString, parameters: Mapping[str, Any]
) -> psycopg.Cursor[Any]:
    # Prepared: of a tiny venue, planning these would cost more than doing them.
    return connection.execute(statement(__package__, name), parameters, prepare=True)
