"""Dead letters: what could not be done, in one list, each with its reason.

A letter is a venue whose tries are exhausted, or one item inside a venue. There is one open letter
for each; a later success resolves it by itself.
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
from venue_analytics.harness.job import Job, Venue
from venue_analytics.harness.tenant import tenant_transaction


@dataclass(frozen=True)
class DeadLetter:
    """One letter.

    Attributes:
        id: its number.
        job: the job.
        venue_id: the venue.
        tenant_id: the venue's tenant.
        venue_name: shown to people.
        kind: venue, or item.
        key: the item's own; of a venue empty, or its as_of where a job keeps every date.
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
    venue_id: UUID
    tenant_id: UUID
    venue_name: str
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
        """Whether somebody has still to see to it."""
        return self.state in ("open", "replaying")


#: A run, a venue that it has not done, the last attempt (None if none was begun), and why in words.
Undone = tuple[PlannedRun, Venue, Attempt | None, str]


def write_venues(connection: psycopg.Connection, job: Job[Any], undone: Iterable[Undone]) -> None:
    """Write letters for venues whose tries are exhausted, or renew those that are open.

    In the order of the venues' ids: two runs that write at once never wait for each other. None is
    written where another run has done the venue meanwhile, nor for a dry run.
    """
    for run, venue, attempt, error in sorted(undone, key=lambda one: (one[1].venue_id, one[0].id)):
        if run.dry_run:
            continue
        _write(
            connection,
            run,
            venue,
            kind="venue",
            key=venue_key(job, run.as_of),
            error_type=(attempt.error_type if attempt else None) or "NotDone",
            error=error,
            traceback=attempt.traceback if attempt else None,
        )


def write_item(
    connection: psycopg.Connection,
    run: PlannedRun,
    venue: Venue,
    key: str,
    payload: Mapping[str, Any],
    error: Exception,
) -> None:
    """Write a letter for an item of a venue, in the transaction of the step that met it."""
    letter = _write(
        connection,
        run,
        venue,
        kind="item",
        key=key,
        error_type=type(error).__name__,
        error=describe(error),
        traceback="".join(traceback.format_tb(error.__traceback__)) or None,
    )
    connection.execute(
        statement(__package__, "store_payload"),
        {
            "letter": letter,
            "tenant_id": venue.tenant_id,
            "payload": Jsonb(_storable(dict(payload))),
        },
    )


def venue_key(job: Job[Any], as_of: datetime) -> str:
    """Give the key of a venue's letter: empty, or its date where a job keeps every one."""
    return as_of.isoformat() if job.keeps_every_date else ""


def find(
    connection: psycopg.Connection, *, job: str | None = None, ended: bool = False
) -> list[DeadLetter]:
    """Give the letters that are open, or with `ended` all; the last failed first."""
    with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        return cursor.execute(
            statement(__package__, "find_letters"), {"job": job, "ended": ended, "id": None}
        ).fetchall()


def load(connection: psycopg.Connection, letter: int) -> DeadLetter | None:
    """Give one letter; None if there is none of that number."""
    with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        return cursor.execute(
            statement(__package__, "find_letters"), {"job": None, "ended": True, "id": letter}
        ).fetchone()


def by_run(letters: list[DeadLetter]) -> list[list[DeadLetter]]:
    """Put letters together that one run can replay: of the same kind and failed run."""

    def run(letter: DeadLetter) -> tuple[Any, ...]:
        return letter.as_of, letter.run, letter.kind

    ordered = sorted(letters, key=lambda letter: (*run(letter), letter.id))
    return [list(together) for _, together in groupby(ordered, key=run)]


def payload(connection: psycopg.Connection, letter: DeadLetter) -> dict[str, Any] | None:
    """Give what could not be processed, read under its tenant; None for a venue."""
    with tenant_transaction(connection, letter.tenant_id):
        row = connection.execute(
            statement(__package__, "load_payload"),
            {"letter": letter.id, "tenant_id": letter.tenant_id},
        ).fetchone()
    return row[0] if row else None


def begin_replay(connection: psycopg.Connection, letter: DeadLetter) -> bool:
    """Note that a letter is being replayed; False if it has ended meanwhile."""
    return (
        connection.execute(statement(__package__, "replay_letter"), {"letter": letter.id}).rowcount
        == 1
    )


def end_replay(connection: psycopg.Connection, letter: DeadLetter) -> None:
    """Open a letter again that its replay has not resolved."""
    connection.execute(statement(__package__, "reopen_letter"), {"letter": letter.id})


def discard(connection: psycopg.Connection, letter: DeadLetter, *, reason: str, by: str) -> bool:
    """Give a letter up, with a reason and a name; False if it has ended meanwhile."""
    return (
        connection.execute(
            statement(__package__, "discard_letter"),
            {"letter": letter.id, "reason": reason, "ended_by": by},
        ).rowcount
        == 1
    )


def _write(
    connection: psycopg.Connection,
    run: PlannedRun,
    venue: Venue,
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
            "venue_id": venue.venue_id,
            "tenant_id": venue.tenant_id,
            "venue_name": venue.name,
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
    """Give a payload as jsonb takes it: a NUL or half a pair must not cost the whole venue."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_storable(str(key)): _storable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(one) for one in value]
    return value
