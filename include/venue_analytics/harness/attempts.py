"""The moves of an attempt at a venue, each atomic: token, history row, enter, step's end, close.

A transaction on a venue is: BEGIN, `enter`, the job's statements, `end_step` or `close`, COMMIT.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness import dead_letters
from venue_analytics.harness.database_errors import in_words
from venue_analytics.harness.errors import LeaseLostError, PermanentError
from venue_analytics.harness.failures import describe
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.job import Job, Outcome, Venue, VenueResult
from venue_analytics.harness.leases import Holder
from venue_analytics.harness.settings import JobSettings
from venue_analytics.harness.standing import Checkpoint, Done, Work, can_resume, reason_to_skip


@dataclass
class VenueAttempt:
    """One attempt at one venue.

    Attributes:
        run: as planned.
        venue: the venue.
        settings: as they hold for it.
        work: what is to do.
        holder: what its lease says.
        clear_number: how often the run had been cleared when this try began.
        token: its fencing token, once drawn.
        row: its row in history, once there.
        entered_at: when its first transaction began, by the database's clock.
        resumed: whether an earlier attempt had done some of its steps.
    """

    run: PlannedRun
    venue: Venue
    settings: JobSettings
    work: Work
    holder: Holder
    clear_number: int = 0
    token: int | None = None
    row: int | None = None
    entered_at: datetime | None = None
    resumed: bool = False

    def start_over(self) -> None:
        """Forget token and row: the lease is to be taken anew, and is another one."""
        self.token = self.row = None
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


def enter(connection: psycopg.Connection, attempt: VenueAttempt) -> None:
    """Begin a transaction's work: its tenant is set, its fence locked, its token the newest.

    Whatever holders of older tokens have committed is in sight, although the transaction sees the
    moment of its begin: they did so before this token was drawn, or never will.

    Raises:
        psycopg.Error: with SQLSTATE VA001, if another attempt has drawn a token since.
        LeaseLostError: the same, drawn while this waited for the fence.
    """
    try:
        _execute(
            connection,
            "enter",
            _names(attempt) | {"tenant_id": attempt.venue.tenant_id, "token": attempt.token},
        )
    except psycopg.errors.SerializationFailure:
        raise LeaseLostError("another attempt has taken over meanwhile") from None


def standing(
    connection: psycopg.Connection, job: Job[Any], attempt: VenueAttempt
) -> tuple[Done | None, Checkpoint | None]:
    """Read what stands of the venue: its latest success, and unfinished work.

    Notes when it was asked, by the database's clock.

    Raises:
        LeaseLostError: the run has been planned anew: what an earlier plan asked for, a try that
            was cleared and lives on, has no say any more.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            statement(__package__, "standing"),
            _names(attempt)
            | {
                "run": attempt.run.id,
                "as_of": attempt.work.as_of,
                "keeps_every_date": job.keeps_every_date,
            },
            prepare=True,
        ).fetchone()
    if row is None:
        raise LookupError(f"venue {attempt.venue.name}: history gave no answer")
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


def begin(connection: psycopg.Connection, job: Job[Any], attempt: VenueAttempt) -> str | Checkpoint:
    """Ask, in the first transaction after `enter`, what there is to do.

    Returns:
        The reason why there is nothing, or from where to go on.
    """
    done, checkpoint = standing(connection, job, attempt)
    if reason := reason_to_skip(attempt.work, done, checkpoint):
        return reason
    work = attempt.work
    if checkpoint is None or not can_resume(work, checkpoint):
        return Checkpoint(work.as_of, work.rules_hash, work.round, work.plan_number, 0, None)
    attempt.resumed = True
    if checkpoint.plan_number > work.plan_number:
        _execute(
            connection,
            "count_for_plan",
            {"id": attempt.row, "plan_number": checkpoint.plan_number},
        )
        return checkpoint
    return Checkpoint(
        work.as_of,
        work.rules_hash,
        work.round,
        work.plan_number,
        checkpoint.step,
        checkpoint.cursor,
    )


def end_step(connection: psycopg.Connection, attempt: VenueAttempt, checkpoint: Checkpoint) -> None:
    """Note how far the venue has come, in the transaction of the step's data."""
    work = attempt.work
    _execute(
        connection,
        "store_checkpoint",
        _names(attempt)
        | {
            "as_of": work.as_of,
            "rules_hash": work.rules_hash,
            "round": work.round,
            "plan_number": checkpoint.plan_number,
            "step": checkpoint.step,
            "cursor": None if checkpoint.cursor is None else Jsonb(checkpoint.cursor),
        },
    )


def close(
    connection: psycopg.Connection, job: Job[Any], attempt: VenueAttempt, result: VenueResult
) -> None:
    """End an attempt well, in the transaction of its last data: done, or nothing to do.

    A success forgets the checkpoint; any good end answers the venue's dead letters up to its as_of.
    Items were met again by an attempt that did every step, and went well or are no more; one that
    resumed has not looked at what an earlier attempt may have set aside.

    Raises:
        LeaseLostError: its row has been closed by somebody who took it for dead, or somebody has
            written to one of its letters since this transaction began.
    """
    has_met_items = result.outcome is Outcome.SUCCEEDED and not attempt.resumed
    parameters = _names(attempt) | {
        "id": attempt.row,
        "outcome": result.outcome,
        "reason": result.reason,
        "started_at": attempt.entered_at,
        "rows_read": result.rows_read,
        "rows_written": result.rows_written,
        "rows_unchanged": result.rows_unchanged,
        "rows_removed": result.rows_removed,
        "left_out": Jsonb(dict(result.left_out)),
        "summary": Jsonb(dict(result.summary)),
        "as_of": attempt.work.as_of,
        "dry_run": attempt.run.dry_run,
        "key": dead_letters.venue_key(job, attempt.work.as_of),
        "items_before": attempt.entered_at if has_met_items else None,
    }
    try:
        (ended,) = _execute(connection, "end_well", parameters).fetchone() or (0,)
    except psycopg.errors.SerializationFailure:
        raise LeaseLostError(
            "its row in history was closed by another process, or one of its letters changed"
        ) from None
    if not ended:
        raise LeaseLostError("its row in history was closed by another process")


def close_failed(
    connection: psycopg.Connection, attempt: VenueAttempt, error: BaseException
) -> None:
    """Note in history that an attempt failed; one that has no row yet gets one."""
    if attempt.row is None:
        open_rows(connection, [attempt])
    frames = traceback.format_tb(error.__traceback__)
    fault = in_words(error) if isinstance(error, psycopg.Error) else error
    _execute(
        connection,
        "end_failed",
        {
            "id": attempt.row,
            "started_at": attempt.entered_at,
            "permanent": isinstance(fault, PermanentError),
            "error_type": type(error).__name__,
            "error": describe(error),
            # where it happened; the values that it happened with may be somebody's
            "traceback": "".join(frames) or None,
        },
    )


def _names(attempt: VenueAttempt) -> dict[str, Any]:
    return {"job": attempt.run.job, "venue_id": attempt.venue.venue_id}


def _execute(
    connection: psycopg.Connection, name: LiteralString, parameters: Mapping[str, Any]
) -> psycopg.Cursor[Any]:
    # Prepared: of a tiny venue, planning these would cost more than doing them.
    return connection.execute(statement(__package__, name), parameters, prepare=True)
