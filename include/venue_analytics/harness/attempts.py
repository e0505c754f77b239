"""The moves of attempts at units, each atomic: token, history row, enter, end of a step, close.

A transaction on a group of units is: BEGIN, `enter`, the job's statements, `end_step` or `close`,
COMMIT. Each move is one statement, however many units there are.
"""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, LiteralString, Self
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness import dead_letters, groups
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.database_errors import translate_error
from venue_analytics.harness.errors import LeaseLostError, PermanentError
from venue_analytics.harness.failures import describe
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.job import Job, Outcome, UnitResult
from venue_analytics.harness.leases import Holder
from venue_analytics.harness.parameters import RunParameters
from venue_analytics.harness.settings import JobSettings, hash_of_rules
from venue_analytics.harness.standing import Checkpoint, Decision, Done, Work, decide
from venue_analytics.harness.unit import Unit

TAKEN_OVER = "another attempt has taken over"


@dataclass(frozen=True)
class BatchTry:
    """One try of a batch.

    Attributes:
        run: as planned.
        batch: the batch.
        settings: as plan stored them.
        parameters: the job's own of this run.
        try_number: it takes over the leases of earlier tries.
        clear_number: how often the run had been cleared when this try began.
        round: the round of the batch that it works in; 0 before it has opened or joined one.
        process: one process's own mark.
    """

    run: PlannedRun
    batch: Batch
    settings: JobSettings
    parameters: RunParameters
    try_number: int = 1
    clear_number: int = 0
    round: int = 0
    process: UUID = field(default_factory=uuid4)

    @classmethod
    def of(
        cls,
        job: Job[Any],
        run: PlannedRun,
        batch: Batch,
        *,
        try_number: int = 1,
        clear_number: int = 0,
    ) -> Self:
        """Return a try with the settings and parameters that plan stored."""
        settings = job.settings.model_validate_json(json.dumps(run.settings))
        parameters = job.parameters.model_validate_json(json.dumps(run.parameters))
        return cls(run, batch, settings, parameters, try_number, clear_number)


def rules_hash(settings: JobSettings, parameters: RunParameters) -> str:
    """Return the hash of what shapes results: of the settings, and of the job's own parameters."""
    own = parameters.rules_as_json()
    if not own:
        return settings.rules_hash()
    return hash_of_rules({"settings": settings.rules_as_json(), "parameters": own})


@dataclass(eq=False)
class UnitAttempt:
    """One attempt at one unit.

    Attributes:
        batch_try: the try of a batch that it belongs to.
        unit: the unit.
        settings: as they hold for it.
        rules_hash: of what shapes its results.
        process: of this process; another one once the attempt has started over.
        patience: how many times longer than others it may take before it is cut.
        seconds: what the steps that it has done took.
        token: its fencing token, once drawn.
        row: its row in history, once there.
        is_alone: whether it shares its transactions with no other unit.
        entered_at: when its first transaction began, by the database's clock.
        resumed: whether an earlier attempt had done some of its steps.
        progress: how far it has come; None before it has read history.
    """

    batch_try: BatchTry
    unit: Unit
    settings: JobSettings
    rules_hash: str
    process: UUID
    patience: int = 1
    seconds: float = 0.0
    token: int | None = None
    row: int | None = None
    is_alone: bool = False
    entered_at: datetime | None = None
    resumed: bool = False
    progress: Checkpoint | None = None

    @property
    def run(self) -> PlannedRun:
        """The run, as planned."""
        return self.batch_try.run

    @property
    def work(self) -> Work:
        """What it is asked to do."""
        run, one = self.run, self.batch_try
        return Work(run.as_of, self.rules_hash, run.force, run.id, one.batch.number, one.round)

    @property
    def holder(self) -> Holder:
        """What its lease says."""
        run, one = self.run, self.batch_try
        return Holder(
            run.deployment,
            run.run_id,
            one.batch.number,
            one.try_number,
            run.as_of,
            self.rules_hash,
            self.process,
        )

    def start_over(self) -> None:
        """Forget what the lease allowed: it is to be taken anew, and is another one."""
        self.token = self.row = self.progress = self.entered_at = None
        self.process = uuid4()


def draw_tokens(connection: psycopg.Connection, job: str, attempts: Sequence[UnitAttempt]) -> None:
    """Draw each attempt's fencing token; from here on, older tokens write nothing.

    Raises:
        psycopg.errors.LockNotAvailable: a transaction on one of the units goes on for too long.
    """
    rows = _execute(
        connection,
        "draw_tokens",
        {"job": job, "unit_ids": [attempt.unit.id for attempt in attempts]},
    ).fetchall()
    tokens: dict[UUID, int] = dict(rows)
    for attempt in attempts:
        attempt.token = tokens[attempt.unit.id]


def open_rows(connection: psycopg.Connection, attempts: Sequence[UnitAttempt]) -> None:
    """Insert the rows of these attempts, all of one batch, into history: they begin."""
    run, batch_try = attempts[0].run, attempts[0].batch_try
    rows = _execute(
        connection,
        "open_unit_runs",
        {
            "run": run.id,
            "for_plan": run.id,
            "batch": batch_try.batch.number,
            "round": batch_try.round,
            "try_number": batch_try.try_number,
            "clear_number": batch_try.clear_number,
            "job": run.job,
            "as_of": run.as_of,
            "host": socket.gethostname(),
            "alone": len(attempts) == 1,
            "dry_run": run.dry_run,
            "unit_ids": [attempt.unit.id for attempt in attempts],
            "tenant_ids": [attempt.unit.tenant_id for attempt in attempts],
            "gone": [attempt.unit.gone for attempt in attempts],
            "names": [attempt.unit.name for attempt in attempts],
            "rules_hashes": [attempt.rules_hash for attempt in attempts],
            "tokens": [attempt.token for attempt in attempts],
        },
    ).fetchall()
    ids: dict[UUID, int] = dict(rows)
    for attempt in attempts:
        attempt.row = ids[attempt.unit.id]


def enter(
    connection: psycopg.Connection, attempts: Sequence[UnitAttempt], limit: timedelta | None = None
) -> set[UUID]:
    """Begin a transaction's work: set its tenant, and lock the fences of its units.

    Whatever holders of older tokens have committed is visible, although the transaction sees the
    snapshot of its beginning: they did so before these tokens were drawn, or never will.

    Args:
        connection: in a transaction that has done nothing yet.
        attempts: at units of one tenant.
        limit: how long one of the transaction's statements may take; None means the session's.

    Returns:
        The units whose token is not the newest: another attempt has taken over.

    Raises:
        LeaseLostError: a token was drawn while this waited for the fence of a single unit.
        psycopg.errors.SerializationFailure: the same of one of several units.
    """
    names = {
        "job": attempts[0].run.job,
        "tenant_id": attempts[0].unit.tenant_id,
        "unit_ids": [attempt.unit.id for attempt in attempts],
        "tokens": [attempt.token for attempt in attempts],
        "limit_ms": None if limit is None else round(limit.total_seconds() * 1000),
    }
    with _lost_if_single(attempts, TAKEN_OVER):
        return {unit_id for (unit_id,) in _execute(connection, "enter", names)}


def standing(
    connection: psycopg.Connection, job: Job[Any], attempts: Sequence[UnitAttempt]
) -> list[tuple[Done | None, Checkpoint | None]]:
    """Return the latest success of each unit, and its unfinished work.

    Sets when each attempt entered, by the database's clock.

    Raises:
        LeaseLostError: the run has been planned anew. A try of an earlier plan, one that was
            cleared and lives on, may write nothing any more.
    """
    names = {
        "job": job.name,
        "unit_ids": [attempt.unit.id for attempt in attempts],
        "run": attempts[0].run.id,
        "as_of": attempts[0].run.as_of,
        "keeps_every_date": job.keeps_every_date,
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(statement(__package__, "standing"), names, prepare=True)
        rows = {row["unit_id"]: row for row in cursor}
    return [_standing(attempt, rows[attempt.unit.id]) for attempt in attempts]


def _standing(
    attempt: UnitAttempt, row: Mapping[str, Any]
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
            row["done_for_tenant"] == attempt.unit.tenant_id
            and row["done_when_gone"] == attempt.unit.gone,
        )
    if row["begun_as_of"] is not None:
        checkpoint = Checkpoint(
            row["begun_as_of"],
            row["begun_rules_hash"],
            row["begun_round"],
            row["begun_for_plan"],
            tuple(row["begun_done"]),
            row["begun_step"],
            row["begun_cursor"],
            row["begun_for_tenant"] == attempt.unit.tenant_id,
        )
    return done, checkpoint


def begin(
    connection: psycopg.Connection, job: Job[Any], attempts: Sequence[UnitAttempt]
) -> list[Decision]:
    """Decide, in the first transaction after `enter`, what each attempt has to do."""
    decisions = [
        decide(attempt.work, done, checkpoint)
        for attempt, (done, checkpoint) in zip(
            attempts, standing(connection, job, attempts), strict=True
        )
    ]
    for attempt, decision in zip(attempts, decisions, strict=True):
        attempt.resumed = decision.resumes and decision.reason_to_skip is None
        if attempt.resumed and decision.checkpoint.plan > attempt.run.id:
            names = {"id": attempt.row, "for_plan": decision.checkpoint.plan}
            _execute(connection, "count_for_plan", names)
    return decisions


def end_step(
    connection: psycopg.Connection, attempts: Sequence[UnitAttempt], ends: Sequence[Checkpoint]
) -> None:
    """Store how far units have come, all as far, in the transaction of the step's data."""
    first = ends[0]
    names = {
        "job": attempts[0].run.job,
        "unit_ids": [attempt.unit.id for attempt in attempts],
        "tenant_id": attempts[0].unit.tenant_id,
        "plans": [end.plan for end in ends],
        "as_of": first.as_of,
        "rules_hash": first.rules_hash,
        "round": first.round,
        "done": list(first.done),
        "step": first.step,
        "cursor": None if first.step is None else Jsonb(first.cursor),
    }
    _execute(connection, "store_checkpoint", names)


def close(
    connection: psycopg.Connection,
    job: Job[Any],
    attempts: Sequence[UnitAttempt],
    results: Sequence[UnitResult],
) -> None:
    """End attempts well, in the transaction of their last data: done, or nothing to do.

    - A success deletes the checkpoint.
    - Any good end resolves the unit's dead letters up to its as_of.
    - It resolves those of items only where the attempt did every step: then each item was met
      again and went well, or is there no more. An attempt that resumed has not looked at what an
      earlier one may have set aside.
    - What the transaction took is shared among its units by the rows that they read.

    Raises:
        LeaseLostError: the row of a unit, which it names, has been closed by somebody who took its
            attempt for dead; or, of a single unit, somebody has written to one of its letters
            since this transaction began.
        psycopg.errors.SerializationFailure: the same letter, of one of several units.
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
        "as_of": attempts[0].run.as_of,
        "dry_run": attempts[0].run.dry_run,
        "key": dead_letters.unit_key(job, attempts[0].run.as_of),
    }
    with _lost_if_single(
        attempts, "its row in history was closed by another process, or one of its letters changed"
    ):
        ended = {row for (row,) in _execute(connection, "end_well", names)}
    for attempt in attempts:
        if attempt.row not in ended:
            raise LeaseLostError(
                "its row in history was closed by another process", unit_id=attempt.unit.id
            )


def _end(attempt: UnitAttempt, result: UnitResult, *, share: float) -> dict[str, Any]:
    entered_at = attempt.entered_at and attempt.entered_at.isoformat()
    has_met_items = result.outcome is Outcome.SUCCEEDED and not attempt.resumed
    return {
        "id": attempt.row,
        "unit_id": str(attempt.unit.id),
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
    connection: psycopg.Connection, attempts: Sequence[UnitAttempt], error: BaseException
) -> dict[int, UnitResult]:
    """Close the rows of failed attempts in history; those that have no row yet get one.

    Returns:
        By row, the results of attempts that had ended well already: the answer to a COMMIT was
        lost. While the server is still at such a commit, this waits for its end.
    """
    if without := [attempt for attempt in attempts if attempt.row is None]:
        open_rows(connection, without)
    frames = traceback.format_tb(error.__traceback__)
    fault = translate_error(error) if isinstance(error, psycopg.Error) else error
    names = {
        "ids": [attempt.row for attempt in attempts],
        "started_at": [attempt.entered_at for attempt in attempts],
        "permanent": isinstance(fault, PermanentError),
        "is_common": isinstance(error, Exception) and not groups.may_be_one_units(error),
        "error_type": type(error).__name__,
        "error": describe(error),
        # where it happened; the values that it happened with may be somebody's
        "traceback": "".join(frames) or None,
    }
    closed = {row for (row,) in _execute(connection, "end_failed", names)}
    if not (others := [attempt.row for attempt in attempts if attempt.row not in closed]):
        return {}
    return {
        row: UnitResult(Outcome(outcome), *values)
        for row, outcome, *values in _execute(connection, "ended_well", {"ids": others})
    }


@contextmanager
def _lost_if_single(attempts: Sequence[UnitAttempt], message: str) -> Iterator[None]:
    """Translate a failed serialization for a single unit; a group may be tried again."""
    try:
        yield
    except psycopg.errors.SerializationFailure:
        if len(attempts) > 1:
            raise
        raise LeaseLostError(message) from None


def _execute(
    connection: psycopg.Connection, name: LiteralString, parameters: Mapping[str, Any]
) -> psycopg.Cursor[Any]:
    # Prepared: for a tiny unit, planning these would cost more than executing them.
    return connection.execute(statement(__package__, name), parameters, prepare=True)
