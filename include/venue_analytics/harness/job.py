"""What a job declares to the harness, and what the harness passes to a job."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID

import psycopg

from venue_analytics.harness.parameters import RunParameters
from venue_analytics.harness.report import Report, Table
from venue_analytics.harness.settings import JobSettings
from venue_analytics.harness.unit import Unit, UnitKind

S = TypeVar("S", bound=JobSettings)


class Outcome(StrEnum):
    """How an attempt at a unit ended."""

    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class UnitRun(Generic[S]):
    """One step of one attempt at one unit, as a job sees it.

    Attributes:
        connection: in a transaction that the harness commits. It has the unit's tenant set and the
            unit's fence locked, and sees one snapshot throughout (REPEATABLE READ).
        unit: the venue or tenant.
        settings: as they hold for this unit.
        parameters: the job's own parameters of this run.
        as_of: results are a function of the source before this moment.
        force: whether results of a later as_of are replaced.
        set_aside: writes a dead letter for an item that cannot be processed (its key, its payload,
            its error), in this transaction; the rest of the unit goes on.
        cursor: where the last piece of this step left off; None when the step starts.
    """

    connection: psycopg.Connection
    unit: Unit
    settings: S
    parameters: Any
    as_of: datetime
    force: bool
    set_aside: Callable[[str, Mapping[str, Any], Exception], None]
    cursor: Any = None


@dataclass(frozen=True)
class UnitResult:
    """What a job did for one unit; its last step returns it.

    Attributes:
        outcome: succeeded or skipped; a failure is raised.
        reason: why it was skipped, or a remark on the result.
        rows_read: source rows that were read.
        rows_written: rows inserted or changed.
        rows_unchanged: rows that were right already.
        rows_removed: rows deleted.
        left_out: source rows that were not counted, by kind.
        summary: the job's own figures, which its report shows; JSON, no personal data.
    """

    outcome: Outcome = Outcome.SUCCEEDED
    reason: str | None = None
    rows_read: int = 0
    rows_written: int = 0
    rows_unchanged: int = 0
    rows_removed: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Continue:
    """A step has done a piece of its work and wants another transaction for the next piece.

    Attributes:
        cursor: where to go on; JSON. It is committed with the piece.
    """

    cursor: Any


@dataclass(frozen=True)
class GroupRun(Generic[S]):
    """One step of a group: units of one tenant that share a transaction.

    Attributes:
        connection: as a UnitRun's; the fences of all units are locked.
        tenant_id: the tenant.
        units: the units, at least one; none has been removed from the source.
        settings: as they hold for each of them.
        parameters: as a UnitRun's.
        as_of: results are a function of the source before this moment.
        force: whether results of a later as_of are replaced.
        set_aside: as a UnitRun's; the unit comes first.
    """

    connection: psycopg.Connection
    tenant_id: UUID
    units: tuple[Unit, ...]
    settings: S
    parameters: Any
    as_of: datetime
    force: bool
    set_aside: Callable[[Unit, str, Mapping[str, Any], Exception], None]


@dataclass(frozen=True)
class Grouped(Generic[S]):
    """A step that takes a group at once.

    For small units, planning and committing cost more than the work.

    Attributes:
        do: as the last step, it returns the result of every unit by id. An error whose `unit_id`
            is set fails that unit, and the others are processed without it; after most other
            errors, each unit is processed by itself.
    """

    do: Callable[[GroupRun[S]], Mapping[UUID, UnitResult] | None]


@dataclass(frozen=True)
class Action:
    """One thing to do outside the database, such as a mail to send.

    Attributes:
        key: identifies the action within its unit, permanently: under one key, an action is
            performed at most once. No personal data.
        payload: what `act` needs; JSON. A dead letter keeps it, under its tenant.
    """

    key: str
    payload: Mapping[str, Any]


def _keep_nothing(_connection: psycopg.Connection, _unit: Unit, _action: Action) -> None:
    """Keep nothing of a performed action."""


@dataclass(frozen=True)
class Effect(Generic[S]):
    """A step that acts outside the database, where nothing can be rolled back.

    Each action is claimed (committed), performed outside any transaction, and recorded (committed).
    Whatever dies, none is performed twice, and none is forgotten: an action whose outcome is
    unknown becomes a dead letter, and only a person has it performed again. It is never the last
    step.

    Attributes:
        due: returns the actions to perform now, in the same kind of transaction as a step. The
            harness leaves out those whose key was performed before.
        act: performs one. Returning means that it is done; a PermanentError or TransientError, that
            it is certainly not done; any other error, that nobody knows.
        record: writes what the job keeps of a performed action (connection, unit, action), in the
            transaction that records it.
    """

    due: Callable[[UnitRun[S]], Iterable[Action]]
    act: Callable[[Action], None]
    record: Callable[[psycopg.Connection, Unit, Action], None] = _keep_nothing


#: A step works in one transaction: all of it, or a piece (`Continue`). The last one returns the
#: result.
Step = Callable[[UnitRun[S]], UnitResult | Continue | None]
#: Returns the best of a tenant, for people (connection, tenant, how many rows).
Top = Callable[[psycopg.Connection, UUID, int], Table]
#: Returns which of a tenant's units have work now (connection, units, the run's settings, as_of).
Due = Callable[[psycopg.Connection, Sequence[Unit], S, datetime], Collection[UUID]]


@dataclass(frozen=True)
class Preview(Generic[S]):
    """A dry run: what settings would change.

    Attributes:
        do: returns what would change at one unit, in its summary, and writes nothing.
        report: what people are shown of the results, by unit id.
    """

    do: Callable[[UnitRun[S]], UnitResult]
    report: Callable[[Mapping[UUID, UnitResult]], Report]


def _report_nothing(_: Mapping[UUID, UnitResult]) -> Report:
    return Report()


@dataclass(frozen=True)
class Job(Generic[S]):
    """A job: what happens to one unit, what the job keeps, and what people are shown.

    Attributes:
        name: its DAG, its Variable, its folder and its name in history.
        settings: the model of its Variable: a VenueSettings or TenantSettings, which also decides
            whether its unit is a venue or a tenant.
        steps: by name, in order. Each has a transaction of its own, for one unit or, where it is
            `Grouped`, for several; an `Effect` acts between transactions. After a failure the steps
            that have committed are not repeated; they are known by their names, so that steps may
            be added and reordered between two tries.
        remove: deletes what it keeps of one unit (connection, tenant, unit id) and returns the
            number of rows.
        units_held: returns the units of a tenant that it keeps rows of (connection, tenant).
        keeps_every_date: whether it keeps a result for each as_of, rather than only the newest.
        keeps_every_success: whether history keeps every success of a unit; a job that runs every
            few minutes keeps only each unit's latest, and one row a run.
        parameters: its own parameters of a run.
        due: which units have work now; asked only when the run names no units. Plan maps only
            these. None means all.
        preview: its dry run; None where it has none.
        report: what people are shown of the results of a run, by unit id.
        top: the best of a tenant, for `show-run --top`; None where there is nothing to show.
    """

    name: str
    settings: type[S]
    steps: Mapping[str, Step[S] | Grouped[S] | Effect[S]]
    remove: Callable[[psycopg.Connection, UUID, UUID], int]
    units_held: Callable[[psycopg.Connection, UUID], list[UUID]]
    keeps_every_date: bool = False
    keeps_every_success: bool = True
    parameters: type[RunParameters] = RunParameters
    due: Due[S] | None = None
    preview: Preview[S] | None = None
    report: Callable[[Mapping[UUID, UnitResult]], Report] = _report_nothing
    top: Top | None = None

    def __post_init__(self) -> None:
        if not self.steps:
            raise TypeError(f"{self.name} has no steps")
        if isinstance(self.steps[self.last_step], Effect):
            raise TypeError(
                f"step {self.last_step!r} of {self.name}: an Effect cannot be the last step, which "
                "returns the result"
            )
        if self.keeps_every_date and not self.keeps_every_success:
            raise TypeError(
                f"{self.name} keeps a result for each as_of: history must keep every success, as "
                "the proof that the result is there"
            )

    @property
    def unit(self) -> UnitKind:
        """What it works on, one after the other."""
        return self.settings.UNIT

    @property
    def last_step(self) -> str:
        """The name of the step that returns the result."""
        return list(self.steps)[-1]

    def next_step(self, done: Collection[str]) -> str:
        """Return the first step that is not done, or the last one if all are done."""
        return next((name for name in self.steps if name not in done), self.last_step)
