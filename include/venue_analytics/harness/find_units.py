"""Which units there are, which of them are gone, and which of them a run processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from venue_analytics.database.statements import statement
from venue_analytics.harness.errors import PermanentError
from venue_analytics.harness.job import Due, Job
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.settings import JobSettings
from venue_analytics.harness.tenant import tenant_transaction
from venue_analytics.harness.unit import Unit, UnitKind


@dataclass(frozen=True)
class FoundUnits:
    """What the source lists, and what a job holds.

    Attributes:
        units: those to process: the open ones, and those that are gone but still have results.
        listed: ids of all units that the source lists, open or not, with a tenant or without.
        faults: what is wrong with the source, in words.
    """

    units: list[Unit]
    listed: frozenset[UUID]
    faults: list[str]


@dataclass(frozen=True)
class ListedVenue:
    """A venue as the source lists it, open or not, with a tenant or without."""

    venue_id: UUID
    tenant_id: UUID | None
    name: str | None
    timezone: str | None
    currency: str | None
    open: bool


def list_venues(connection: psycopg.Connection) -> list[ListedVenue]:
    """Return the venues of every tenant, as the source lists them."""
    with connection.cursor(row_factory=class_row(ListedVenue)) as cursor:
        return cursor.execute(statement(__package__, "list_venues")).fetchall()


def find_units(connection: psycopg.Connection, job: Job[Any]) -> FoundUnits:
    """Find the units of every tenant; where a tenant's data are read, under that tenant alone.

    A venue without a tenant is left out and reported; its results stay as they are. A unit that is
    closed, or no longer listed, is gone: its results are to be removed.

    Raises:
        PermanentError: the source lists no unit at all, though results of some stand; a broken
            source must not remove everything.
    """
    rows = list_venues(connection)
    listed, units = (_tenants if job.unit is UnitKind.TENANT else _venues)(rows)
    faults = [
        f"venue {row.name or row.venue_id} ({row.venue_id}) has no tenant: left out"
        for row in rows
        if row.tenant_id is None
    ]
    worked_for = connection.execute(
        statement(__package__, "tenants_of_job"), {"job": job.name}
    ).fetchall()
    tenants = {unit.tenant_id for unit in units.values()} | {tenant for (tenant,) in worked_for}
    held: set[UUID] = set()
    for tenant_id in sorted(tenants):
        with tenant_transaction(connection, tenant_id):
            held_here = job.units_held(connection, tenant_id)
        held.update(held_here)
        for unit_id in held_here:
            known = units.get(unit_id)
            if known is None and unit_id not in listed:
                units[unit_id] = Unit(unit_id, tenant_id, str(unit_id), gone=True, kind=job.unit)
            elif known is not None and known.tenant_id != tenant_id:
                units[unit_id] = dataclasses.replace(known, former_tenant_id=tenant_id)
    if held and not listed:
        raise PermanentError(
            f"source.venues lists no venue, though {job.name} holds results of {len(held)} "
            f"{job.unit.plural}: nothing is removed. Run `python -m venue_analytics check-source`."
        )
    to_do = [unit for unit in units.values() if not unit.gone or unit.id in held]
    return FoundUnits(to_do, listed, faults)


def choose_units(
    connection: psycopg.Connection,
    job: Job[Any],
    found: FoundUnits,
    settings: JobSettings,
    request: RunRequest,
    as_of: datetime,
) -> list[Unit]:
    """Return the units that the request names, else those of the settings that have work now.

    Raises:
        PermanentError: the request names a unit that cannot be processed.
    """
    by_id = {unit.id: unit for unit in found.units}
    unknown = [str(unit_id) for unit_id in request.units or () if unit_id not in by_id]
    if unknown:
        allowed = {
            UnitKind.VENUE: "open venues that have a tenant, as source.venues lists them",
            UnitKind.TENANT: "tenants that have a venue in source.venues",
        }[job.unit]
        raise PermanentError(f"{job.unit.plural} = {', '.join(unknown)}: must be ids of {allowed}")
    if request.units:
        return [by_id[unit_id] for unit_id in dict.fromkeys(request.units)]
    chosen = set(settings.include or by_id) - set(settings.exclude)
    units = [unit for unit in found.units if unit.id in chosen]
    return units if job.due is None else _due(connection, job.due, units, settings, as_of)


def unknown_in_settings(found: FoundUnits, settings: JobSettings) -> list[str]:
    """Name the units that settings mention and the source does not list."""
    kind = settings.UNIT
    mentioned = {
        f"include_{kind.plural}": settings.include,
        f"exclude_{kind.plural}": settings.exclude,
        kind.plural: list(settings.overrides),
    }
    return [
        f"setting {name} names {kind} {unit_id}, which source.venues does not list"
        for name, ids in mentioned.items()
        for unit_id in ids
        if unit_id not in found.listed
    ]


def _venues(rows: Sequence[ListedVenue]) -> tuple[frozenset[UUID], dict[UUID, Unit]]:
    units = {
        row.venue_id: Unit(
            row.venue_id,
            row.tenant_id,
            row.name or str(row.venue_id),
            row.timezone,
            row.currency,
            gone=not row.open,
        )
        for row in rows
        if row.tenant_id is not None
    }
    return frozenset(row.venue_id for row in rows), units


def _tenants(rows: Sequence[ListedVenue]) -> tuple[frozenset[UUID], dict[UUID, Unit]]:
    """Return the tenants of all venues, also of closed ones: they may have work for them."""
    listed = {row.tenant_id for row in rows if row.tenant_id is not None}
    return frozenset(listed), {
        one: Unit(one, one, f"tenant {one}", kind=UnitKind.TENANT) for one in sorted(listed)
    }


def _due(
    connection: psycopg.Connection,
    due: Due[Any],
    units: Sequence[Unit],
    settings: JobSettings,
    as_of: datetime,
) -> list[Unit]:
    """Return the units that have work now; those that are gone have: their rows go."""
    have_work = [unit for unit in units if unit.gone]
    there = sorted((unit for unit in units if not unit.gone), key=lambda unit: unit.tenant_id)
    for tenant_id, of_tenant in groupby(there, key=lambda unit: unit.tenant_id):
        asked = list(of_tenant)
        with tenant_transaction(connection, tenant_id):
            ids: set[Any] = set(due(connection, asked, settings, as_of))
        if others := [one for one in ids if not isinstance(one, UUID)]:
            raise TypeError(f"due returned {others[0]!r}: must return ids of units")
        have_work += [unit for unit in asked if unit.id in ids]
    return have_work
