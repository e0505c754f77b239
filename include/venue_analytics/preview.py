"""What a dry run found: who would move from which segment to which, over all its venues."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from venue_analytics.harness.history import Attempt

#: Shown where a customer is in no segment, before or after.
NONE = "(none)"


@dataclass(frozen=True)
class Movement:
    """Customers who would move between two segments.

    Attributes:
        before: their segment now; `NONE` if they have none.
        after: their segment then.
        currency: ISO 4217, of what they spent.
        customers: how many, over all venues.
        spent: what they have spent there, in units of the currency.
    """

    before: str
    after: str
    currency: str
    customers: int
    spent: Decimal

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{self.before} → {self.after}: {self.customers:,} customers who spent "
            f"{self.spent:,.2f} {self.currency}"
        )


def movements(attempts: Iterable[Attempt]) -> list[Movement]:
    """Add up what a dry run found at its venues; the largest movement first."""
    totals: dict[tuple[str, str, str], tuple[int, int]] = {}
    for attempt in attempts:
        summary = attempt.summary or {}
        for one in summary.get("movements", ()):
            key = (one["from"] or NONE, one["to"] or NONE, summary["currency"] or "")
            customers, cents = totals.get(key, (0, 0))
            totals[key] = (customers + one["customers"], cents + one["spent_cents"])
    moved = [
        Movement(*key, customers, Decimal(cents).scaleb(-2))
        for key, (customers, cents) in totals.items()
    ]
    return sorted(moved, key=lambda one: (-one.customers, one.before, one.after, one.currency))
