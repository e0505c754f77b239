"""History: what was planned, what was tried, how it ended. Schema `jobs` of the database."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.job import Outcome, Venue
from venue_analytics.harness.request import RunRequest


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
        id: of its plan's row in history.
        deployment: the Airflow that runs it, or the command line's run.
        plan_number: of its last plan; later plans have higher numbers.
        job: the job's name.
        run_id: Airflow's, or one of the command line's own.
        as_of: what its results are as of.
        force: whether results of a later as_of are replaced.
        dry_run: whether it only says what would change.
        settings: as plan read them.
        source_faults: what plan found amiss in the source, in words.
        left_behind: what earlier runs left undone when they ended without their finish, in words.
        planned_at: when.
        outcome: planned, succeeded or failed.
    """

    id: int
    deployment: UUID
    plan_number: int
    job: str
    run_id: str
    as_of: datetime
    force: bool
    dry_run: bool
    settings: dict[str, Any]
    source_faults: list[str]
    left_behind: list[str]
    planned_at: datetime
    outcome: str

    @property
    def key(self) -> RunKey:
        """What names the run."""
        return RunKey(self.deployment, self.job, self.run_id)


@dataclass(frozen=True)
class Attempt:
    """The last attempt at a venue in the present round of its batch."""

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
    clear_number: int
    alone: bool
    is_common: bool
    permanent: bool
    error_type: str | None
    error: str | None
    traceback: str | None

    @property
    def ended_well(self) -> bool:
        """Whether nothing is left to do for the venue."""
        return self.outcome in (Outcome.SUCCEEDED, Outcome.SKIPPED)


@dataclass(frozen=True)
class RunSummary:
    """A run in a list: what it was as of, and how many of its venues ended how."""

    job: str
    run_id: str
    as_of: datetime
    force: bool
    dry_run: bool
    planned_at: datetime
    finished_at: datetime | None
    outcome: str
    planned: int
    succeeded: int
    skipped: int
    failed: int


@dataclass(frozen=True)
class AttemptSummary:
    """An attempt at a venue in a list."""

    job: str
    run_id: str
    as_of: datetime
    round: int
    try_number: int
    token: int | None
    outcome: str
    reason: str | None
    started_at: datetime
    seconds: float | None
    rows_written: int | None
    host: str


def store_plan(
    connection: psycopg.Connection,
    key: RunKey,
    *,
    plan_try: int,
    as_of: datetime,
    request: RunRequest,
    settings: dict[str, Any],
    source_faults: list[str],
    left_behind: list[str],
    batches: list[Batch],
) -> None:
    """Store a plan. Of a run's plans that of the latest try holds, whichever is stored last.

    The rounds of its batches follow on those of the earlier plans: what ended well under one of
    these is done again.

    Raises:
        LookupError: this try has stored a plan already.
    """
    names = dataclasses.asdict(key)
    parameters = names | {
        "plan_try": plan_try,
        "as_of": as_of,
        "force": request.force,
        "dry_run": request.dry_run,
        "settings": Jsonb(settings),
        "source_faults": Jsonb(source_faults),
        "left_behind": Jsonb(left_behind),
    }
    with connection.transaction(), connection.cursor() as cursor:
        (last_round,) = cursor.execute(statement(__package__, "last_round"), names).fetchone() or (
            0,
        )
        # what an earlier try of this plan has found and nobody has told yet
        told = cursor.execute(statement(__package__, "left_behind"), names).fetchone()
        parameters["left_behind"] = Jsonb((told[0] if told else []) + left_behind)
        row = cursor.execute(statement(__package__, "store_run"), parameters).fetchone()
        if row is None:
            raise LookupError(f"run {key.run_id} of {key.job}: try {plan_try} has a plan already")
        cursor.executemany(
            statement(__package__, "store_batch"),
            [
                {
                    "run": row[0],
                    "number": batch.number,
                    "label": batch.label,
                    "venues": Jsonb([_venue_to_json(venue) for venue in batch.venues]),
                    "round": last_round,
                }
                for batch in batches
            ],
        )


def load_run(connection: psycopg.Connection, key: RunKey) -> PlannedRun | None:
    """Give a run as its latest plan has it, None if no plan was stored."""
    return _load_run(connection, "load_run", dataclasses.asdict(key))


def load_plan(connection: psycopg.Connection, plan: int) -> PlannedRun:
    """Give a run as one of its plans has it, by the id of the plan's row.

    Raises:
        LookupError: there is none.
    """
    found = _load_run(connection, "load_plan", {"run": plan})
    if found is None:
        raise LookupError(f"plan {plan} is not in history")
    return found


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


def last_attempts(
    connection: psycopg.Connection, run: PlannedRun, batch: int | None = None
) -> dict[UUID, Attempt]:
    """Give, for each venue that the present round of its batch has begun, how that stands.

    A good end counts before any other, else the last attempt.
    """
    with connection.cursor(row_factory=class_row(Attempt)) as cursor:
        cursor.execute(statement(__package__, "last_attempts"), {"run": run.id, "number": batch})
        return {attempt.venue_id: attempt for attempt in cursor}


def last_durations(
    connection: psycopg.Connection, job: str, venue_ids: list[UUID]
) -> dict[UUID, float]:
    """Give the seconds that each venue took when it was last done."""
    rows = connection.execute(
        statement(__package__, "last_durations"), {"job": job, "venue_ids": venue_ids}
    )
    return dict(rows.fetchall())


def open_round(
    connection: psycopg.Connection, run: PlannedRun, batch: int, clear_number: int
) -> int:
    """Give the round that a try of a batch works in; opens the next where that is due.

    Args:
        connection: of the jobs' role.
        run: as planned.
        batch: the batch's number.
        clear_number: how often the run had been cleared when the try began.
    """
    row = connection.execute(
        statement(__package__, "open_round"),
        {"run": run.id, "number": batch, "clear_number": clear_number},
    ).fetchone()
    if row is None:
        raise LookupError(f"run {run.run_id} of {run.job} has no batch {batch}")
    return int(row[0])


def end_round_well(
    connection: psycopg.Connection, run: PlannedRun, batch: int, round_: int, clear_number: int
) -> None:
    """Note that a round of a batch ended well, unless a later round has begun."""
    connection.execute(
        statement(__package__, "end_round_well"),
        {"run": run.id, "number": batch, "round": round_, "clear_number": clear_number},
    )


def list_runs(connection: psycopg.Connection, job: str | None, limit: int) -> list[RunSummary]:
    """Give the latest runs, of one job or of all."""
    with connection.cursor(row_factory=class_row(RunSummary)) as cursor:
        return cursor.execute(
            statement(__package__, "list_runs"), {"job": job, "rows": limit}
        ).fetchall()


def list_attempts(
    connection: psycopg.Connection, venue_id: UUID, job: str | None, limit: int
) -> list[AttemptSummary]:
    """Give the latest attempts at a venue, by one job or by all."""
    with connection.cursor(row_factory=class_row(AttemptSummary)) as cursor:
        return cursor.execute(
            statement(__package__, "list_attempts"),
            {"venue_id": venue_id, "job": job, "rows": limit},
        ).fetchall()


def unfinished_runs(connection: psycopg.Connection, key: RunKey) -> list[PlannedRun]:
    """Give the job's other runs that nothing has ended in history, the oldest first."""
    with connection.cursor(row_factory=class_row(PlannedRun)) as cursor:
        return cursor.execute(
            statement(__package__, "unfinished_runs"), dataclasses.asdict(key)
        ).fetchall()


def finish_run(connection: psycopg.Connection, run: PlannedRun, outcome: Outcome) -> None:
    """Note how a run ended."""
    connection.execute(statement(__package__, "finish_run"), {"run": run.id, "outcome": outcome})


def _load_run(
    connection: psycopg.Connection, name: LiteralString, parameters: dict[str, Any]
) -> PlannedRun | None:
    with connection.cursor(row_factory=class_row(PlannedRun)) as cursor:
        return cursor.execute(statement(__package__, name), parameters).fetchone()


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
