"""Dead letters: everything that could not be done, in one list, each with its reason.

A letter is about a unit whose tries are exhausted, an item or an action inside a unit, or a message
that belongs to no unit. There is one open letter for each. A later success resolves it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness.failures import describe
from venue_analytics.harness.history import Attempt, PlannedRun
from venue_analytics.harness.job import Job
from venue_analytics.harness.tenant import tenant_transaction
from venue_analytics.harness.unit import Unit


@dataclass(frozen=True)
class DeadLetter:
    """One letter.

    Attributes:
        id: its number.
        job: the job.
        unit_id: the unit; None for a message.
        tenant_id: the unit's tenant; None for a message.
        unit_name: shown to people; None for a message.
        kind: unit, item, action or message.
        key: of the item, action or message; of a unit empty, or its as_of where a job keeps every
            date.
        as_of: of the run that failed last.
        run: row of the plan that failed last.
        run_id: that run's id.
        error_type: class of the error.
        error: in words.
        traceback: where it happened; None where there is none.
        attempts: how often it failed.
        first_failed_at: when for the first time.
        last_failed_at: when for the last time.
        state: open, replaying, resolved or discarded.
        ended_at: when it was resolved or discarded.
        reason: why it was discarded.
        ended_by: who discarded it.
    """

    id: int
    job: str
    unit_id: UUID | None
    tenant_id: UUID | None
    unit_name: str | None
    kind: str
    key: str
    as_of: datetime
    run: int
    run_id: str
    error_type: str
    error: str
    traceback: str | None
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime
    state: str
    ended_at: datetime | None
    reason: str | None
    ended_by: str | None

    @property
    def is_open(self) -> bool:
        """Whether somebody has still to deal with it."""
        return self.state in ("open", "replaying")


#: A run, a unit that it has not done, the last attempt (None if there is none), and why in words.
Undone = tuple[PlannedRun, Unit, Attempt | None, str]


def write_units(connection: psycopg.Connection, job: Job[Any], undone: Iterable[Undone]) -> None:
    """Write letters for units whose tries are exhausted, or renew those that are open.

    They are written in the order of the units' ids: two runs that write at once never deadlock.
    None is written where another run has done the unit meanwhile, nor for a dry run.
    """
    for run, unit, attempt, error in sorted(undone, key=lambda one: (one[1].id, one[0].id)):
        if run.dry_run:
            continue
        _write(
            connection,
            run,
            unit,
            kind="unit",
            key=unit_key(job, run.as_of),
            error_type=(attempt.error_type if attempt else None) or "NotDone",
            error=error,
            traceback=attempt.traceback if attempt else None,
        )


def write_item(
    connection: psycopg.Connection,
    run: PlannedRun,
    unit: Unit,
    key: str,
    payload: Mapping[str, Any],
    error: Exception,
    *,
    kind: str = "item",
) -> None:
    """Write a letter for an item or an action of a unit, in the transaction that is open.

    Its tenant is set there: the payload is stored under it.
    """
    letter = _write(
        connection,
        run,
        unit,
        kind=kind,
        key=key,
        error_type=type(error).__name__,
        error=describe(error),
        traceback="".join(traceback.format_tb(error.__traceback__)) or None,
    )
    connection.execute(
        statement(__package__, "store_payload"),
        {
            "letter": letter,
            "tenant_id": unit.tenant_id,
            "payload": Jsonb(_storable(dict(payload))),
        },
    )


def write_message(
    connection: psycopg.Connection, run: PlannedRun, key: str, error: Exception
) -> None:
    """Write a letter for a message that belongs to no unit, such as an event that cannot be read.

    It has no payload: without a tenant there is nowhere to keep personal data.
    """
    _write(
        connection,
        run,
        None,
        kind="message",
        key=key,
        error_type=type(error).__name__,
        error=describe(error),
        traceback=None,
    )


def unit_key(job: Job[Any], as_of: datetime) -> str:
    """Return the key of a unit's letter: empty, or its date where a job keeps every one."""
    return as_of.isoformat() if job.keeps_every_date else ""


def find(
    connection: psycopg.Connection, *, job: str | None = None, ended: bool = False
) -> list[DeadLetter]:
    """Return the letters that are open, or with `ended` all; the last failed first."""
    with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        return cursor.execute(
            statement(__package__, "find_letters"), {"job": job, "ended": ended, "id": None}
        ).fetchall()


def load(connection: psycopg.Connection, letter: int) -> DeadLetter | None:
    """Return one letter; None if there is none of that number."""
    with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        return cursor.execute(
            statement(__package__, "find_letters"), {"job": None, "ended": True, "id": letter}
        ).fetchone()


def by_run(letters: list[DeadLetter]) -> list[list[DeadLetter]]:
    """Group letters that one run can replay: of the same kind and failed run."""

    def run(letter: DeadLetter) -> tuple[Any, ...]:
        return letter.as_of, letter.run, letter.kind

    ordered = sorted(letters, key=lambda letter: (*run(letter), letter.id))
    return [list(together) for _, together in groupby(ordered, key=run)]


def payload(connection: psycopg.Connection, letter: DeadLetter) -> dict[str, Any] | None:
    """Return what could not be processed, read under its tenant; None where nothing is kept."""
    if letter.tenant_id is None:
        return None
    with tenant_transaction(connection, letter.tenant_id):
        row = connection.execute(
            statement(__package__, "load_payload"),
            {"letter": letter.id, "tenant_id": letter.tenant_id},
        ).fetchone()
    return row[0] if row else None


def begin_replay(connection: psycopg.Connection, letter: DeadLetter) -> bool:
    """Mark a letter as being replayed; return False if it has ended meanwhile.

    The action of a letter may be performed again from here on, whatever became of it.
    """
    with connection.transaction():
        names = _lock_action(connection, letter)
        is_open = connection.execute(statement(__package__, "replay_letter"), names).rowcount == 1
        if is_open and letter.kind == "action":
            connection.execute(statement(__package__, "free_action"), names)
    return is_open


def end_replay(connection: psycopg.Connection, letter: DeadLetter) -> None:
    """Reopen a letter that its replay has not resolved.

    An action that the replay has not come to is again one that only a person has performed.
    """
    with connection.transaction():
        names = _lock_action(connection, letter)
        was_open = connection.execute(statement(__package__, "reopen_letter"), names).rowcount == 1
        if was_open and letter.kind == "action":
            names["discarded"] = False
            connection.execute(statement(__package__, "give_up_action"), names)


def discard(connection: psycopg.Connection, letter: DeadLetter, *, reason: str, by: str) -> bool:
    """Discard a letter, with a reason and a name; return False if it has ended meanwhile.

    The action of a letter is not performed any more, even if a replay has begun to repeat it.
    """
    with connection.transaction():
        names = _lock_action(connection, letter) | {"reason": reason, "ended_by": by}
        was_open = connection.execute(statement(__package__, "discard_letter"), names).rowcount == 1
        if was_open and letter.kind == "action":
            names["discarded"] = True
            connection.execute(statement(__package__, "give_up_action"), names)
    return was_open


def _lock_action(connection: psycopg.Connection, letter: DeadLetter) -> dict[str, Any]:
    """Lock the action of a letter before the letter; return what names both."""
    names = {
        "letter": letter.id,
        "job": letter.job,
        "unit_id": letter.unit_id,
        "key": letter.key,
    }
    if letter.kind == "action":
        connection.execute(statement(__package__, "lock_action"), names)
    return names


def _write(
    connection: psycopg.Connection,
    run: PlannedRun,
    unit: Unit | None,
    *,
    kind: str,
    key: str,
    error_type: str,
    error: str,
    traceback: str | None,
) -> int | None:
    row = connection.execute(
        statement(__package__, "write_letter"),
        {
            "job": run.job,
            "unit_id": unit and unit.id,
            "tenant_id": unit and unit.tenant_id,
            "unit_name": unit and unit.name,
            "kind": kind,
            "key": key,
            "as_of": run.as_of,
            "run": run.id,
            "error_type": error_type,
            "error": error,
            "traceback": traceback,
        },
    ).fetchone()
    return int(row[0]) if row is not None else None


def _storable(value: Any) -> Any:
    """Return a payload as jsonb takes it: a NUL or half a pair must not fail the whole unit."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_storable(str(key)): _storable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(one) for one in value]
    return value
