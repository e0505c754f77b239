"""A unit of work: a venue, or a tenant with all that is its."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class UnitKind(StrEnum):
    """What the units of a job are."""

    VENUE = "venue"
    TENANT = "tenant"

    @property
    def plural(self) -> str:
        """The word for several, as in the names of settings and run parameters."""
        return f"{self}s"


@dataclass(frozen=True)
class Unit:
    """A venue or a tenant that a run has planned.

    Attributes:
        id: the source's id.
        tenant_id: the tenant it belongs to; a tenant's own id.
        name: shown to people.
        timezone: IANA name, None = UTC; of a tenant None.
        currency: ISO 4217 where the source names one; of a tenant None.
        gone: closed in the source or no longer in it: its rows go.
        former_tenant_id: another tenant, under whom rows of this venue still stand.
        expected_seconds: what it took last time; None if it was never done.
        kind: which of the two it is.
    """

    id: UUID
    tenant_id: UUID
    name: str
    timezone: str | None = None
    currency: str | None = None
    gone: bool = False
    former_tenant_id: UUID | None = None
    expected_seconds: float | None = None
    kind: UnitKind = UnitKind.VENUE
