"""Venues: which ones there are, which have gone, and which of them a run does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from venue_analytics.database.statements import statement
from venue_analytics.harness.errors import PermanentError
from venue_analytics.harness.job import Job, Venue
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.settings import JobSettings
from venue_analytics.harness.tenant import tenant_transaction


@dataclass(frozen=True)
class FoundVenues:
    """What the source lists, and what a job holds.

    Attributes:
        venues: those to do: the open ones, and those that have gone but still have results.
        listed: ids of all venues of the source, open or not, with a tenant or without.
        faults: what is amiss in the source, in words.
    """

    venues: list[Venue]
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
    """Give the venues of every tenant, as the source lists them."""
    with connection.cursor(row_factory=class_row(ListedVenue)) as cursor:
        return cursor.execute(statement(__package__, "list_venues")).fetchall()


def find_venues(connection: psycopg.Connection, job: Job[Any]) -> FoundVenues:
    """Find the venues of every tenant, one tenant at a time where its data are looked at.

    A venue without a tenant is left out and told; its results stay as they are. A venue that is
    closed, or no longer listed, has gone: its results are to be removed.

    Raises:
        PermanentError: the source lists no venue at all, though results of some stand; a broken
            source must not remove everything.
    """
    rows = list_venues(connection)
    worked_for = connection.execute(
        statement(__package__, "tenants_of_job"), {"job": job.name}
    ).fetchall()
    listed = frozenset(row.venue_id for row in rows)
    faults = []
    venues: dict[UUID, Venue] = {}
    for row in rows:
        shown = row.name or str(row.venue_id)
        if row.tenant_id is None:
            faults.append(f"venue {shown} ({row.venue_id}) has no tenant: left out")
        else:
            venues[row.venue_id] = Venue(
                row.venue_id, row.tenant_id, shown, row.timezone, row.currency, gone=not row.open
            )
    having_venues = {venue.tenant_id for venue in venues.values()}
    tenants = having_venues | {tenant for (tenant,) in worked_for}
    held: set[UUID] = set()
    for tenant_id in sorted(tenants):
        with tenant_transaction(connection, tenant_id):
            held_here = job.venues_held(connection, tenant_id)
        held.update(held_here)
        for venue_id in held_here:
            known = venues.get(venue_id)
            if known is None and venue_id not in listed:
                venues[venue_id] = Venue(venue_id, tenant_id, str(venue_id), gone=True)
            elif known is not None and known.tenant_id != tenant_id:
                venues[venue_id] = dataclasses.replace(known, former_tenant_id=tenant_id)
    if held and not listed:
        raise PermanentError(
            f"source.venues lists no venue, though {job.name} holds results of {len(held)}: "
            "nothing is removed. Run `python -m venue_analytics check-source`."
        )
    to_do = [v for v in venues.values() if not v.gone or v.venue_id in held]
    return FoundVenues(to_do, listed, faults)


def choose_venues(found: FoundVenues, settings: JobSettings, request: RunRequest) -> list[Venue]:
    """Keep the venues that the settings and the request name.

    Raises:
        PermanentError: the request names a venue that cannot be done.
    """
    by_id = {venue.venue_id: venue for venue in found.venues}
    unknown = [str(venue_id) for venue_id in request.venues or () if venue_id not in by_id]
    if unknown:
        raise PermanentError(
            f"venues = {', '.join(unknown)}: must be ids of open venues that have a tenant, as "
            "source.venues lists them"
        )
    chosen = set(request.venues or settings.include_venues or by_id)
    if not request.venues:
        chosen -= set(settings.exclude_venues)
    return [venue for venue in found.venues if venue.venue_id in chosen]


def unknown_in_settings(found: FoundVenues, settings: JobSettings) -> list[str]:
    """Name the venue ids that settings mention and the source does not have."""
    mentioned = {
        "include_venues": settings.include_venues,
        "exclude_venues": settings.exclude_venues,
        "venues": list(settings.venues),
    }
    return [
        f"setting {name} names venue {venue_id}, which source.venues does not list"
        for name, ids in mentioned.items()
        for venue_id in ids
        if venue_id not in found.listed
    ]
