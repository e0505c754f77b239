"""What stands of a venue's scores, and whether tonight's may lean on it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from venue_analytics.database.statements import statement
from venue_analytics.harness import Venue
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings


@dataclass(frozen=True)
class VenueState:
    """What the scores of a venue are as of, and rest on.

    Attributes:
        venue_id: the venue.
        as_of: of its scores; None before its first build.
        full_as_of: of the last build of everybody.
        currency: ISO 4217, of the purchases that count.
        main_currency: that of most of its sales at its first build.
        rules_hash: of the settings that shaped the scores.
        rules_before: hash of the rules in force before the night that is asked about; None if
            there was no build before it.
        currency_before: of the purchases that counted then.
        source_keeps_updated_at: whether the source says when a row was last written.
    """

    venue_id: UUID
    as_of: datetime | None
    full_as_of: datetime | None
    currency: str | None
    main_currency: str | None
    rules_hash: str | None
    rules_before: str | None
    currency_before: str | None
    source_keeps_updated_at: bool

    def currency_in_force(self, venue: Venue, settings: RfmScoringSettings) -> str | None:
        """Give the currency that counts: of the settings, of the source, or of most sales."""
        return settings.currency or venue.currency or self.main_currency

    def why_full(
        self, venue: Venue, settings: RfmScoringSettings, as_of: datetime, full: bool
    ) -> str | None:
        """Say why everybody must be built from the source; None if what has changed is enough."""
        if self.as_of is None or self.full_as_of is None:
            return "first"
        if full:
            return "asked for"
        if not self.source_keeps_updated_at:
            return "the source keeps no updated_at"
        if as_of < self.as_of:
            return "an older night"
        if as_of == self.as_of:
            return "the same night again"
        if settings.rules_hash() != self.rules_hash:
            return "other rules"
        if self.main_currency is None:
            return "no sale so far"
        if self.currency_in_force(venue, settings) != self.currency:
            return "another currency"
        days = settings.full_rebuild_days
        if _turn(venue.venue_id, as_of, days) != _turn(venue.venue_id, self.full_as_of, days):
            return "its turn" if days == 1 else f"its turn every {days} days"
        return None


def lookback_begin(settings: RfmScoringSettings, as_of: datetime) -> datetime | None:
    """Give the moment from which purchases count; None means from the first."""
    return as_of - timedelta(days=settings.lookback_days) if settings.lookback_days else None


def venue_states(
    connection: psycopg.Connection, tenant_id: UUID, venue_ids: Sequence[UUID], as_of: datetime
) -> dict[UUID, VenueState]:
    """Read the states of venues of the tenant that is set; a venue of another has none."""
    names: dict[str, Any] = {
        "tenant_id": tenant_id,
        "venue_ids": list(venue_ids),
        "as_of": as_of,
    }
    with connection.cursor(row_factory=class_row(VenueState)) as cursor:
        rows = cursor.execute(statement(__package__, "venue_states"), names, prepare=True)
        return {state.venue_id: state for state in rows}


def _turn(venue_id: UUID, as_of: datetime, days: int) -> int:
    """Number the spans of so many days; each venue's begin on a day of its own."""
    begins = int.from_bytes(hashlib.sha256(venue_id.bytes).digest()[:4]) % days
    return (int(as_of.timestamp() // 86_400) + begins) // days
