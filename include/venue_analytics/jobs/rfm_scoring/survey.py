"""What has changed at venues since their last night, and what the source has in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from venue_analytics.database.statements import statement
from venue_analytics.harness import Venue, VenueToDo
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings
from venue_analytics.jobs.rfm_scoring.state import VenueState, lookback_begin, venue_states


@dataclass(frozen=True)
class VenueSurvey:
    """What the source says of one venue.

    Attributes:
        venue_id: the venue.
        customers: whose rows may no longer be right: an array of ids, as PostgreSQL writes it;
            nobody here looks into it.
        fingerprint: of all its purchases.
        sales: how many sales were looked at.
        left_out: those that are no purchases, by kind.
        remembers_erased: whether history still names an erased customer.
    """

    venue_id: UUID
    customers: str
    fingerprint: int
    sales: int
    left_out: dict[str, int]
    remembers_erased: bool


def survey(
    connection: psycopg.Connection,
    tenant_id: UUID,
    venues: Sequence[VenueToDo[RfmScoringSettings]],
    as_of: datetime,
    full: bool,
) -> dict[UUID, VenueSurvey]:
    """Look at venues of one tenant together: once for many costs a fraction of once for each.

    Args:
        connection: in a transaction that has the tenant set.
        tenant_id: the tenant.
        venues: the venues, with their settings.
        as_of: of tonight.
        full: whether everybody is to be built anyway.

    Returns:
        The venues of which only a part must be built; none while the source is behind.
    """
    complete_to = loaded_through(connection, tenant_id)
    if complete_to is None or complete_to < as_of:
        return {}
    states = venue_states(connection, tenant_id, [one.venue.venue_id for one in venues], as_of)
    alike: dict[tuple[Any, ...], list[UUID]] = {}
    for one in venues:
        state = states.get(one.venue.venue_id)
        if state and state.why_full(one.venue, one.settings, as_of, full) is None:
            key = _bounds(state, one.settings, as_of)
            alike.setdefault(tuple(key.items()), []).append(state.venue_id)
    found: dict[UUID, VenueSurvey] = {}
    for bounds, venue_ids in alike.items():
        found |= _survey(connection, tenant_id, venue_ids, as_of, dict(bounds))
    return found


def survey_one(
    connection: psycopg.Connection,
    venue: Venue,
    state: VenueState,
    settings: RfmScoringSettings,
    as_of: datetime,
) -> VenueSurvey:
    """Look at one venue, at the moment that the transaction sees."""
    bounds = _bounds(state, settings, as_of)
    found = _survey(connection, venue.tenant_id, [venue.venue_id], as_of, bounds)
    return found[venue.venue_id]


def loaded_through(connection: psycopg.Connection, tenant_id: UUID) -> datetime | None:
    """Give the moment up to which the source of a tenant is complete; None where it has no say."""
    row = connection.execute(
        statement(__package__, "loaded_through"), {"tenant_id": tenant_id}
    ).fetchone()
    return row[0] if row else None


def _bounds(
    state: VenueState, settings: RfmScoringSettings, as_of: datetime
) -> dict[str, datetime | str | None]:
    """Give what a survey hangs on: venues that have it in common are surveyed together."""
    last = state.as_of or as_of
    return {
        "watermark": last - timedelta(minutes=settings.overlap_minutes),
        "since_before": lookback_begin(settings, last),
        "since": lookback_begin(settings, as_of),
        "currency": state.currency,
    }


def _survey(
    connection: psycopg.Connection,
    tenant_id: UUID,
    venue_ids: Sequence[UUID],
    as_of: datetime,
    bounds: dict[str, Any],
) -> dict[UUID, VenueSurvey]:
    names = {"tenant_id": tenant_id, "venue_ids": list(venue_ids), "as_of": as_of} | bounds
    with connection.cursor(row_factory=class_row(VenueSurvey)) as cursor:
        rows = cursor.execute(statement(__package__, "survey"), names)
        return {row.venue_id: row for row in rows}
