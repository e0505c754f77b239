"""History: what was planned, what was tried, how it ended. Schema `jobs` of the database."""

from __future__ import annotations

import dataclasses
import socket
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.job import Outcome, Venue, VenueResult
from venue_analytics.harness.settings import JobSettings


@dataclass(frozen=True)
class RunKey:
    """What names a run: two deployments have equal run ids for the same night."""

    deployment: UUID
    job: str
    run_id: str


@dataclass(frozen=True)
class PlannedRun:
    """A run as last planned.

    Attributes:
        id: of its row in history.
        plan_number: of its last plan; later plans have higher numbers.
        job: the job's name.
        run_id: Airflow's, or one of the command line's own.
        as_of: what its results are as of.
        force: whether results of a later as_of are replaced.
        settings: as plan read them.
        source_faults: what plan found amiss in the source, in words.
        outcome: planned, succeeded or failed.
    """

    id: int
    plan_number: int
    job: str
    run_id: str
    as_of: datetime
    force: bool
    settings: dict[str, Any]
    source_faults: list[str]
    outcome: str


@dataclass(frozen=True)
class Attempt:
    """The last attempt at a venue under a plan."""

    venue_id: UUID
    venue_name: str
    batch: int
    outcome: str
    reason: str | None
    seconds: float | None
    rows_read: int | None
    rows_written: int | None
    rows_unchanged: int | None
    rows_removed: int | None
    left_out: dict[str, int] | None
    summary: dict[str, Any] | None
    error: str | None

    @property
    def ended_well(self) -> bool:
        """Whether nothing is left to do for the venue."""
        return self.outcome in (Outcome.SUCCEEDED, Outcome.SKIPPED)


def store_plan(
    connection: psycopg.Connection,
    key: RunKey,
    *,
    as_of: datetime,
    force: bool,
    settings: dict[str, Any],
    source_faults: list[str],
    batches: list[Batch],
) -> PlannedRun:
    """Store a plan; a later plan of the same run replaces the earlier one."""
    parameters = dataclasses.asdict(key) | {
        "as_of": as_of,
        "force": force,
        "settings": Jsonb(settings),
        "source_faults": Jsonb(source_faults),
    }
    with connection.transaction(), connection.cursor() as cursor:
        row = cursor.execute(statement(__package__, "store_run"), parameters).fetchone()
        if row is None:
            raise LookupError(f"run {key.run_id} of {key.job}: its plan was not stored")
        run, plan_number = row
        cursor.execute(statement(__package__, "delete_batches"), {"run": run})
        cursor.executemany(
            statement(__package__, "store_batch"),
            [
                {
                    "run": run,
                    "number": batch.number,
                    "label": batch.label,
                    "venues": Jsonb([_venue_to_json(venue) for venue in batch.venues]),
                }
                for batch in batches
            ],
        )
    return PlannedRun(
        run,
        plan_number,
        key.job,
        key.run_id,
        as_of,
        force,
        settings,
        source_faults,
        "planned",
    )


def load_run(connection: psycopg.Connection, key: RunKey) -> PlannedRun | None:
    """Give a run as last planned, None if no plan was stored."""
    return _load_run(connection, "load_run", dataclasses.asdict(key))


def load_latest_run(
    connection: psycopg.Connection, job: str, run_id: str | None = None
) -> PlannedRun | None:
    """Give the run of a job that was planned last, or the one of that id."""
    return _load_run(connection, "load_latest_run", {"job": job, "run_id": run_id})


def load_batches(
    connection: psycopg.Connection, run: PlannedRun, number: int | None = None
) -> list[Batch]:
    """Give the batches of a run, or the one of that number."""
    rows = connection.execute(
        statement(__package__, "load_batches"), {"run": run.id, "number": number}
    ).fetchall()
    return [
        Batch(number, label, tuple(_venue_from_json(venue) for venue in venues))
        for number, label, venues in rows
    ]


def last_attempts(connection: psycopg.Connection, run: PlannedRun) -> dict[UUID, Attempt]:
    """Give the last attempt at each venue that the run's present plan has begun."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            statement(__package__, "last_attempts"), {"run": run.id, "plan_number": run.plan_number}
        )
        return {row["venue_id"]: Attempt(**row) for row in cursor}


def open_venue_run(
    connection: psycopg.Connection,
    run: PlannedRun,
    batch: int,
    venue: Venue,
    settings: JobSettings,
) -> int:
    """Note that an attempt begins; gives its id."""
    parameters = {
        "run": run.id,
        "plan_number": run.plan_number,
        "batch": batch,
        "job": run.job,
        "venue_id": venue.venue_id,
        "tenant_id": venue.tenant_id,
        "venue_name": venue.name,
        "as_of": run.as_of,
        "rules_hash": settings.rules_hash(),
        "host": socket.gethostname(),
    }
    row = connection.execute(statement(__package__, "open_venue_run"), parameters).fetchone()
    if row is None:
        raise LookupError(f"venue {venue.name}: its attempt was not noted")
    return int(row[0])


def close_venue_run(
    connection: psycopg.Connection, attempt: int, result: VenueResult, error: str | None = None
) -> bool:
    """Note how an attempt ended; whether it was still open, and nobody else has closed it."""
    parameters = {
        "id": attempt,
        "outcome": result.outcome,
        "reason": result.reason,
        "rows_read": result.rows_read,
        "rows_written": result.rows_written,
        "rows_unchanged": result.rows_unchanged,
        "rows_removed": result.rows_removed,
        "left_out": Jsonb(dict(result.left_out)),
        "summary": Jsonb(dict(result.summary)),
        "error": error,
    }
    return connection.execute(statement(__package__, "close_venue_run"), parameters).rowcount == 1


def close_abandoned(connection: psycopg.Connection, run: PlannedRun) -> None:
    """End what a killed process of this run left open; call it when none can be alive."""
    connection.execute(statement(__package__, "close_abandoned"), {"run": run.id})


def finish_run(connection: psycopg.Connection, run: PlannedRun, outcome: Outcome) -> None:
    """Note how a run ended."""
    connection.execute(statement(__package__, "finish_run"), {"run": run.id, "outcome": outcome})


def _load_run(
    connection: psycopg.Connection, name: str, parameters: dict[str, Any]
) -> PlannedRun | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(statement(__package__, name), parameters).fetchone()
    return PlannedRun(**row) if row else None


def _venue_to_json(venue: Venue) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, UUID) else value
        for name, value in dataclasses.asdict(venue).items()
    }


def _venue_from_json(values: dict[str, Any]) -> Venue:
    former = values["former_tenant_id"]
    return Venue(
        **values
        | {
            "venue_id": UUID(values["venue_id"]),
            "tenant_id": UUID(values["tenant_id"]),
            "former_tenant_id": UUID(former) if former else None,
        }
    )
