"""What happens to venues: score their customers, note who moved, summarize their segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness import GroupRun, TransientError, Venue, VenueResult, VenueRun
from venue_analytics.jobs.rfm_scoring.rules import bound_names, rules_of
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings


@dataclass(frozen=True)
class VenueState:
    """A row of `venue_states.sql`.

    Attributes:
        venue_id: the venue.
        as_of: of the venue's scores; None before its first build.
        currency: ISO 4217, of the purchases that count.
        main_currency: that of most of its sales at its first build.
        rules_hash_before: of the rules in force before the night that is asked about; None if there
            was no build before it.
        currency_before: of the purchases that counted then.
    """

    venue_id: UUID
    as_of: datetime | None = None
    currency: str | None = None
    main_currency: str | None = None
    rules_hash_before: str | None = None
    currency_before: str | None = None


@dataclass(frozen=True)
class Scored:
    """A row of `score.sql`."""

    venue_id: UUID
    currency: str | None
    main_currency: str | None
    rules_are_new: bool
    sales: int
    population: int
    shown_before_or_after: int
    written: int
    removed: int
    left_out: dict[str, int]
    movements: list[dict[str, Any]]


def score_venues(run: GroupRun[RfmScoringSettings]) -> dict[UUID, VenueResult]:
    """Bring the scores of a tenant's venues to as_of."""
    return _Night(run.connection, run.tenant_id, run.settings, run.as_of).score(run.venues)


def preview_venue(run: VenueRun[RfmScoringSettings]) -> VenueResult:
    """Say who would move between segments if these settings held; write nothing.

    Compares with the scores that stand, as of their own moment: nobody moves for age.

    Raises:
        TransientError: the source is not loaded up to that moment.
    """
    venue = run.venue
    night = _Night(run.connection, venue.tenant_id, run.settings, run.as_of)
    state = night.states([venue]).get(venue.venue_id, VenueState(venue.venue_id))
    if state.as_of is not None:
        night = replace(night, as_of=state.as_of)
    night.refuse_stale_source()
    (scored,) = night.scored([venue], [state], dry_run=True)
    return VenueResult(
        rows_read=scored.sales,
        rows_unchanged=scored.population,
        left_out=scored.left_out,
        summary={
            "customers": scored.shown_before_or_after,
            "movements": scored.movements,
            "currency": scored.currency,
            # whoever leaves is counted with what stands, which is in this one
            "currency_before": state.currency,
            "as_of": night.as_of.isoformat(),
        },
    )


def remove(connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
    """Delete all that is kept of a venue; return the number of customers' rows."""
    names = {"tenant_id": tenant_id, "venue_id": venue_id}
    (removed,) = connection.execute(statement(__package__, "remove"), names).fetchone() or (0,)
    return int(removed)


def venues_held(connection: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    """Return the venues of a tenant that have scores."""
    rows = connection.execute(statement(__package__, "venues_held"), {"tenant_id": tenant_id})
    return [venue_id for (venue_id,) in rows]


@dataclass(frozen=True)
class _Night:
    """Venues of one tenant, under the same settings, as of one moment."""

    connection: psycopg.Connection
    tenant_id: UUID
    settings: RfmScoringSettings
    as_of: datetime

    def score(self, venues: Sequence[Venue]) -> dict[UUID, VenueResult]:
        """Bring venues' scores to as_of: build them from the source, write what differs.

        1. Refuse a venue whose scores are another tenant's, and a source not complete up to as_of.
        2. Score the customers, and note who moved between segments.
        3. Forget the erased, summarize the segments, note rules and as_of.

        Raises:
            TransientError: the source is not loaded up to as_of yet, or a venue's scores are
                another tenant's.
        """
        ids = [venue.venue_id for venue in venues]
        self.execute("claim_venues", venue_ids=ids)
        states = self.states(venues)
        for venue in venues:
            if venue.venue_id not in states:
                raise TransientError(
                    f"the scores of venue {venue.name} ({venue.venue_id}) belong to another tenant "
                    f"than {venue.tenant_id}, under which the source has it",
                    venue_id=venue.venue_id,
                )
        self.refuse_stale_source()
        scored = self.scored(venues, [states[venue_id] for venue_id in ids])
        self.execute("forget_erased", venue_ids=ids)
        summaries: dict[UUID, list[tuple[str, int, Decimal]]] = {venue_id: [] for venue_id in ids}
        codes = rules_of(self.settings).codes
        for venue_id, *figures in self.execute("summarize", venue_ids=ids, codes=codes):
            summaries[venue_id].append(figures)
        self.execute(
            "set_as_of",
            venue_ids=[one.venue_id for one in scored],
            currencies=[one.currency for one in scored],
            main_currencies=[one.main_currency for one in scored],
            rules_are_new=[one.rules_are_new for one in scored],
            rules_hash=self.settings.rules_hash(),
            rules=Jsonb(self.settings.rules_as_json()),
        )
        return {one.venue_id: _result(one, summaries[one.venue_id]) for one in scored}

    def states(self, venues: Sequence[Venue]) -> dict[UUID, VenueState]:
        """Return what stands of the venues whose state is this tenant's."""
        names = {"venue_ids": [venue.venue_id for venue in venues]} | self._names()
        with self.connection.cursor(row_factory=class_row(VenueState)) as cursor:
            rows = cursor.execute(statement(__package__, "venue_states"), names)
            return {state.venue_id: state for state in rows}

    def scored(
        self, venues: Sequence[Venue], states: Sequence[VenueState], *, dry_run: bool = False
    ) -> list[Scored]:
        """Run `score.sql`; venues and their states are in the same order."""
        settings = self.settings
        names = self._names() | bound_names(settings, self.as_of)
        names |= {
            "venue_ids": [state.venue_id for state in states],
            "currencies": [settings.currency or venue.currency for venue in venues],
            "main_currencies": [state.main_currency for state in states],
            "rules_hashes_before": [state.rules_hash_before for state in states],
            "currencies_before": [state.currency_before for state in states],
            "finds_main_currency": any(state.main_currency is None for state in states),
            "rules_hash": settings.rules_hash(),
            "dry_run": dry_run,
        }
        with self.connection.cursor(row_factory=class_row(Scored)) as cursor:
            return cursor.execute(statement(__package__, "score"), names).fetchall()

    def refuse_stale_source(self) -> None:
        """Refuse a source that is not complete up to as_of."""
        row = self.execute("loaded_through").fetchone()
        loaded_through = row[0] if row else None
        if loaded_through is None or loaded_through < self.as_of:
            raise TransientError(
                f"the source of tenant {self.tenant_id} is loaded through {loaded_through}, "
                f"and as_of is {self.as_of}: scores would miss the orders between"
            )

    def execute(self, name: str, **names: Any) -> psycopg.Cursor[Any]:
        """Run a statement with tenant, as_of and what else it binds."""
        return self.connection.execute(statement(__package__, name), self._names() | names)

    def _names(self) -> dict[str, Any]:
        return {"tenant_id": self.tenant_id, "as_of": self.as_of}


def _result(scored: Scored, segments: Sequence[tuple[str, int, Decimal]]) -> VenueResult:
    return VenueResult(
        rows_read=scored.sales,
        rows_written=scored.written,
        rows_unchanged=scored.population - scored.written,
        rows_removed=scored.removed,
        left_out=scored.left_out,
        summary={
            "customers": sum(count for _, count, _ in segments),
            "segments": {name: count for name, count, _ in segments},
            "revenue": str(sum(revenue for _, _, revenue in segments)),
            "currency": scored.currency,
        },
    )
