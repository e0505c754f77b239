"""What a job gives the harness, and what the harness gives a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID

import psycopg

from venue_analytics.harness.settings import JobSettings

S = TypeVar("S", bound=JobSettings)


class Outcome(StrEnum):
    """How an attempt at a venue ended."""

    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Venue:
    """A venue that a run has planned.

    Attributes:
        venue_id: the source's id.
        tenant_id: the tenant it belongs to.
        name: shown to people.
        timezone: IANA name, None = UTC.
        currency: ISO 4217 where the source names one.
        gone: closed in the source or no longer in it: its rows go.
        former_tenant_id: another tenant, under whom rows of this venue still stand.
        expected_seconds: what it took last time; None if it was never done.
    """

    venue_id: UUID
    tenant_id: UUID
    name: str
    timezone: str | None = None
    currency: str | None = None
    gone: bool = False
    former_tenant_id: UUID | None = None
    expected_seconds: float | None = None


@dataclass(frozen=True)
class VenueRun(Generic[S]):
    """One step of one attempt at one venue, as a job sees it.

    Attributes:
        connection: in a transaction that has the venue's tenant set and its fence locked, and
            sees one moment throughout (REPEATABLE READ); the harness commits it.
        venue: the venue.
        settings: as they hold for this venue.
        as_of: results are a function of the source before this moment.
        force: replace results of a later as_of.
        set_aside: notes an item (its key, its payload, its error) that cannot be processed as a
            dead letter, in this transaction; the rest of the venue goes on.
        cursor: where the step's last piece left off; None at its begin.
    """

    connection: psycopg.Connection
    venue: Venue
    settings: S
    as_of: datetime
    force: bool
    set_aside: Callable[[str, Mapping[str, Any], Exception], None]
    cursor: Any = None


@dataclass(frozen=True)
class VenueResult:
    """What a job did for one venue; its last step gives it.

    Attributes:
        outcome: succeeded or skipped; a failure is raised.
        reason: why it was skipped, or what was special.
        rows_read: source rows that were looked at.
        rows_written: rows inserted or changed.
        rows_unchanged: rows that were right already.
        rows_removed: rows deleted.
        left_out: source rows that were not counted, by kind.
        summary: the job's own figures, for people; JSON, no personal data.
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
class Again:
    """A step has done a piece of its work and wants another transaction for the next.

    Attributes:
        cursor: where to go on; JSON. Committed with the piece.
    """

    cursor: Any


#: A step works in one transaction: all of it, or a piece (`Again`). The last one gives the result.
Step = Callable[[VenueRun[S]], VenueResult | Again | None]


@dataclass(frozen=True)
class GroupRun(Generic[S]):
    """One step of a group: venues of one tenant that share a transaction.

    Attributes:
        connection: as a VenueRun's; the fences of all venues are locked.
        tenant_id: the tenant.
        venues: the venues, at least one; none is gone.
        settings: as they hold for each of them.
        as_of: results are a function of the source before this moment.
        force: replace results of a later as_of.
        set_aside: as a VenueRun's; the venue comes first.
    """

    connection: psycopg.Connection
    tenant_id: UUID
    venues: tuple[Venue, ...]
    settings: S
    as_of: datetime
    force: bool
    set_aside: Callable[[Venue, str, Mapping[str, Any], Exception], None]


@dataclass(frozen=True)
class Grouped(Generic[S]):
    """A step that works on a group at once: planning and committing cost more than a small venue.

    Attributes:
        do: as the last step, it gives the result of every venue by id. An error whose `venue_id`
            is set fails that venue, and the others are done without it; after most others, each
            venue is done by itself.
    """

    do: Callable[[GroupRun[S]], Mapping[UUID, VenueResult] | None]


@dataclass(frozen=True)
class Job(Generic[S]):
    """A job: what happens to one venue, and what it keeps.

    Attributes:
        name: its DAG, its Variable and its name in history.
        settings: the model of its Variable.
        steps: done one after the other, each in a transaction of its own, for one venue or, where
            it is `Grouped`, for several; after a failure the steps that have committed are not
            done again.
        remove: deletes what it keeps of one venue (connection, tenant, venue) and gives the
            number of rows.
        venues_held: the venues of a tenant that it keeps rows of (connection, tenant).
        keeps_every_date: whether it keeps a result for each as_of, and not only the newest.
        preview: says what a run would change, and writes nothing; None where a job cannot say.
    """

    name: str
    settings: type[S]
    steps: tuple[Step[S] | Grouped[S], ...]
    remove: Callable[[psycopg.Connection, UUID, UUID], int]
    venues_held: Callable[[psycopg.Connection, UUID], list[UUID]]
    keeps_every_date: bool = False
    preview: Callable[[VenueRun[S]], VenueResult] | None = None
