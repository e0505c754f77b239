"""Movements between segments as the domain describes them, from the full scores of each night.

The SQL knows only the current results and what it has recorded; this knows every night's scores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.jobs.rfm_scoring.rfm_oracle import Row, VenueScores, half_away


@dataclass(frozen=True)
class Night:
    """A venue's night: its scores, its rules, and the history rows that it wrote."""

    scores: VenueScores
    rules_hash: str
    rows: tuple[Row, ...] = ()

    @property
    def as_of(self) -> datetime:
        """The as_of of its scores."""
        return self.scores.as_of

    @property
    def shown(self) -> dict[UUID, str]:
        """The segment of each customer who has a row."""
        return {customer.customer_id: customer.segment for customer in self.scores.shown}

    @property
    def spent(self) -> dict[UUID, Decimal]:
        """What each customer had spent, shown or not; one who has left has spent nothing."""
        return {customer.customer_id: customer.spent for customer in self.scores.population}

    def without(self, gone: Collection[UUID]) -> Night:
        """Return the night as if these customers had never existed."""
        stay = [c for c in self.scores.population if c.customer_id not in gone]
        return replace(
            self,
            scores=replace(self.scores, population=tuple(stay)),
            rows=tuple(row for row in self.rows if row["customer_id"] not in gone),
        )


@dataclass
class SegmentHistory:
    """One venue's nights that still count, oldest first."""

    nights: list[Night] = field(default_factory=list)

    def note(self, scores: VenueScores, rules_hash: str, erased: Collection[UUID] = ()) -> None:
        """Add a night; it overwrites later ones and an earlier try of itself.

        Args:
            scores: the scores of the night.
            rules_hash: the hash of its rules.
            erased: customers of whom no trace may remain.
        """
        kept = [night for night in self.nights if night.as_of < scores.as_of]
        if erased:
            kept = [night.without(erased) for night in kept]
        rows = _moved(kept[-1], scores, rules_hash) if kept else ()
        self.nights = [*kept, Night(scores, rules_hash, tuple(rows))]

    def forget(self) -> None:
        """Forget all nights, because the venue is gone."""
        self.nights = []

    @property
    def rows(self) -> list[Row]:
        """The rows of the view customer_segment_history."""
        return [row for night in self.nights for row in night.rows]


def segment_movements(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the view of that name, computed from the history's rows."""
    found: dict[tuple[Any, ...], list[Decimal]] = {}
    for row in rows:
        if row["kind"] == "movement":
            key = tuple(row[column] for column in _OF_MOVEMENT)
            found.setdefault(key, []).append(row["total_spent"])
    return [
        {
            **dict(zip(_MOVEMENT_KEY, key, strict=True)),
            "customers": len(spent),
            "total_spent": sum(spent),
        }
        for key, spent in found.items()
    ]


_OF_MOVEMENT = ("venue_id", "tenant_id", "changed_at", "previous_segment", "segment", "currency")
_MOVEMENT_KEY = ("venue_id", "tenant_id", "moved_at", "previous_segment", "segment", "currency")


def _moved(last: Night, scores: VenueScores, rules_hash: str) -> list[Row]:
    """Return a row for each customer whose segment differs from the last night's.

    A venue's first currency is not a change of rules.
    """
    new = Night(scores, rules_hash)
    currency_before = last.scores.currency
    is_other_currency = currency_before is not None and currency_before != scores.currency
    by_rules = last.rules_hash != rules_hash or is_other_currency
    return [
        {
            "customer_id": customer_id,
            "venue_id": scores.venue_id,
            "tenant_id": scores.tenant_id,
            "changed_at": scores.as_of,
            "previous_segment": last.shown.get(customer_id),
            "segment": new.shown.get(customer_id),
            "total_spent": half_away(new.spent.get(customer_id, Decimal(0))),
            "kind": "rules" if by_rules else "movement",
            "rules_hash": rules_hash,
            "currency": scores.currency,
        }
        for customer_id in sorted(last.shown.keys() | new.shown.keys())
        if last.shown.get(customer_id) != new.shown.get(customer_id)
    ]
