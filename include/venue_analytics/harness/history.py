"""History: what was planned, what was attempted, how it ended. Schema `jobs` of the database."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.failures import describe
from venue_analytics.harness.job import Job, Outcome, UnitResult
from venue_analytics.harness.report import Report
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.unit import Unit, UnitKind

#: Why an attempt of a dry run ends skipped.
DRY_RUN = "dry run: nothing was written"


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
        id: of its plan's row in history; a later plan has a higher one.
        deployment: the Airflow that runs it, or the command line's run.
        job: the job's name.
        run_id: Airflow's, or one of the command line's own.
        as_of: what its results are as of.
        force: whether results of a later as_of are replaced.
        dry_run: whether it only reports what would change.
        settings: as plan read them, as JSON.
        parameters: the job's own parameters, as JSON.
        source_faults: what plan found wrong with the source, in words.
        left_behind: what earlier runs left undone when they ended without their finish, in words.
        planned_at: when it was planned.
        finished_at: when it ended; None if it has not.
        outcome: planned, succeeded or failed.
        forgotten: successes of this run that history does not keep any more.
        is_current: whether no later plan of the run has replaced this one.
    """

    id: int
    deployment: UUID
    job: str
    run_id: str
    as_of: datetime
    force: bool
    dry_run: bool
    settings: dict[str, Any]
    parameters: dict[str, Any]
    source_faults: list[str]
    left_behind: list[str]
    planned_at: datetime
    finished_at: datetime | None
    outcome: str
    forgotten: int
    is_current: bool

    @property
    def key(self) -> RunKey:
        """What names the run."""
        return RunKey(self.deployment, self.job, self.run_id)


@dataclass(frozen=True)
class Attempt:
    """The last attempt at a unit in the current round of its batch."""

    unit_id: UUID
    unit_name: str
    unit_gone: bool
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
        """Whether nothing is left to do for the unit."""
        return self.outcome in (Outcome.SUCCEEDED, Outcome.SKIPPED)

    @property
    def result(self) -> UnitResult:
        """What the job returned."""
        return UnitResult(
            Outcome(self.outcome),
            self.reason,
            self.rows_read or 0,
            self.rows_written or 0,
            self.rows_unchanged or 0,
            self.rows_removed or 0,
            self.left_out or {},
            self.summary or {},
        )


@dataclass(frozen=True)
class RunSummary:
    """A run in a list: what it was as of, and how many of its units ended how."""

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
    """An attempt at a unit in a list."""

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
    """Store a plan. Of a run's plans, the one of the latest try holds, whichever is stored last.

    The rounds of its batches follow those of the earlier plans: what ended well under one of these
    is done again.

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
        "parameters": Jsonb(request.parameters.model_dump(mode="json")),
        "source_faults": Jsonb(source_faults),
        "left_behind": Jsonb(left_behind),
    }
    with connection.transaction(), connection.cursor() as cursor:
        (last_round,) = cursor.execute(statement(__package__, "last_round"), names).fetchone() or (
            0,
        )
        # what an earlier try of this plan has found, and finish has not reported yet
        earlier = cursor.execute(statement(__package__, "left_behind"), names).fetchone()
        parameters["left_behind"] = Jsonb((earlier[0] if earlier else []) + left_behind)
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
                    "units": Jsonb([_unit_to_json(unit) for unit in batch.units]),
                    "round": last_round,
                }
                for batch in batches
            ],
        )


def load_run(connection: psycopg.Connection, key: RunKey) -> PlannedRun | None:
    """Return a run as its latest plan has it; None if no plan was stored."""
    return _load_run(connection, "load_run", dataclasses.asdict(key))


def load_plan(connection: psycopg.Connection, plan: int) -> PlannedRun:
    """Return a run as one of its plans has it, by the id of the plan's row.

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
    """Return the run of a job that was planned last, or the one of that id."""
    return _load_run(connection, "load_latest_run", {"job": job, "run_id": run_id})


def load_batches(
    connection: psycopg.Connection, run: PlannedRun, number: int | None = None
) -> list[Batch]:
    """Return the batches of a run, or the one of that number."""
    rows = connection.execute(
        statement(__package__, "load_batches"), {"run": run.id, "number": number}
    ).fetchall()
    return [
        Batch(number, label, tuple(_unit_from_json(unit) for unit in units), ended_well)
        for number, label, units, ended_well in rows
    ]


def last_attempts(
    connection: psycopg.Connection, run: PlannedRun, batch: int | None = None
) -> dict[UUID, Attempt]:
    """Return the attempt that counts for each unit which the current round of its batch has begun.

    That is the one that ended well, else the last.
    """
    with connection.cursor(row_factory=class_row(Attempt)) as cursor:
        cursor.execute(statement(__package__, "last_attempts"), {"run": run.id, "number": batch})
        return {attempt.unit_id: attempt for attempt in cursor}


def last_durations(
    connection: psycopg.Connection, job: str, unit_ids: list[UUID]
) -> dict[UUID, float]:
    """Return the seconds that each unit took when it was last done."""
    rows = connection.execute(
        statement(__package__, "last_durations"), {"job": job, "unit_ids": unit_ids}
    )
    return dict(rows.fetchall())


def open_round(
    connection: psycopg.Connection, run: PlannedRun, batch: int, clear_number: int
) -> int:
    """Return the round that a try of a batch works in; open the next one where that is due.

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
    """Store that a round of a batch ended well, unless a later round has begun."""
    connection.execute(
        statement(__package__, "end_round_well"),
        {"run": run.id, "number": batch, "round": round_, "clear_number": clear_number},
    )


def list_runs(connection: psycopg.Connection, job: str | None, limit: int) -> list[RunSummary]:
    """Return the latest runs, of one job or of all."""
    with connection.cursor(row_factory=class_row(RunSummary)) as cursor:
        return cursor.execute(
            statement(__package__, "list_runs"), {"job": job, "rows": limit}
        ).fetchall()


def list_attempts(
    connection: psycopg.Connection, unit_id: UUID, job: str | None, limit: int
) -> list[AttemptSummary]:
    """Return the latest attempts at a unit, by one job or by all."""
    with connection.cursor(row_factory=class_row(AttemptSummary)) as cursor:
        return cursor.execute(
            statement(__package__, "list_attempts"),
            {"unit_id": unit_id, "job": job, "rows": limit},
        ).fetchall()


def unfinished_runs(connection: psycopg.Connection, key: RunKey) -> list[PlannedRun]:
    """Return the job's other runs that nothing has ended in history, the oldest first."""
    with connection.cursor(row_factory=class_row(PlannedRun)) as cursor:
        return cursor.execute(
            statement(__package__, "unfinished_runs"), dataclasses.asdict(key)
        ).fetchall()


def report_of(job: Job[Any], run: PlannedRun, attempts: Mapping[UUID, Attempt]) -> Report:
    """Return a job's report of a run, over what it returned for units that are there.

    Those that were skipped, or are gone, have no figures of the job.
    """
    if run.forgotten:
        forgotten = f"{run.forgotten:,} {job.unit.plural}"
        return Report(lines=(f"history keeps no figures of {forgotten} of this run any more",))
    ended = Outcome.SKIPPED if run.dry_run else Outcome.SUCCEEDED
    results = {
        unit_id: attempt.result
        for unit_id, attempt in attempts.items()
        if attempt.outcome == ended and not attempt.unit_gone
    }
    report = job.preview.report if run.dry_run and job.preview else job.report
    try:
        return report(results)
    except Exception as error:  # noqa: BLE001  what was done stands, whatever its report is worth
        return Report(lines=(f"the report of {job.name} failed: {describe(error)}",))


def end_run(connection: psycopg.Connection, run: PlannedRun, outcome: Outcome) -> None:
    """Store how a run ended."""
    connection.execute(statement(__package__, "end_run"), {"run": run.id, "outcome": outcome})


def forget_successes(connection: psycopg.Connection, job: str) -> None:
    """Delete the successes of ended runs that a later success has replaced.

    For jobs that run every few minutes: history keeps each unit's latest success, every failure,
    and one row a run with the number of successes that were deleted.
    """
    connection.execute(statement(__package__, "forget_successes"), {"job": job})


def _load_run(
    connection: psycopg.Connection, name: LiteralString, parameters: dict[str, Any]
) -> PlannedRun | None:
    with connection.cursor(row_factory=class_row(PlannedRun)) as cursor:
        return cursor.execute(statement(__package__, name), parameters).fetchone()


def _unit_to_json(unit: Unit) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, UUID) else value
        for name, value in dataclasses.asdict(unit).items()
    }


def _unit_from_json(values: dict[str, Any]) -> Unit:
    former = values["former_tenant_id"]
    return Unit(
        **values
        | {
            "id": UUID(values["id"]),
            "tenant_id": UUID(values["tenant_id"]),
            "former_tenant_id": UUID(former) if former else None,
            "kind": UnitKind(values["kind"]),
        }
    )
