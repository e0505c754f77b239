"""What a dry run found: who would move from which segment to which, over all its venues."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from venue_analytics.harness.history import Attempt

#: Shown where a customer is in no segment, before or after.
NONE = "(none)"


def counted(number: int, noun: str) -> str:
    """Say how many there are of something."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Movement:
    """Customers who would move between two segments.

    Attributes:
        before: their segment now; `NONE` if they have none.
        after: their segment then.
        currency: ISO 4217, of what they spent; where none is known, an empty text.
        customers: how many, over all venues.
        spent: what they have spent there, in units of the currency: what would count, or if
            nothing would, what counts now.
    """

    before: str
    after: str
    currency: str
    customers: int
    spent: Decimal

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{self.before} → {self.after}: {counted(self.customers, 'customer')} who spent "
            f"{self.spent:,.2f} {self.currency}"
        )


def movements(attempts: Iterable[Attempt]) -> list[Movement]:
    """Add up what a dry run found at its venues; the largest movement first."""
    totals: dict[tuple[str, str, str], tuple[int, int]] = {}
    for attempt in attempts:
        summary = attempt.summary or {}
        for one in summary.get("movements", ()):
            currency = summary["currency_before" if one["left"] else "currency"]
            key = (one["from"] or NONE, one["to"] or NONE, currency or "")
            customers, cents = totals.get(key, (0, 0))
            totals[key] = (customers + one["customers"], cents + one["spent_cents"])
    moved = [
        Movement(*key, customers, Decimal(cents).scaleb(-2))
        for key, (customers, cents) in totals.items()
    ]
    return sorted(moved, key=lambda one: (-one.customers, one.before, one.after, one.currency))


def summed_up(attempts: Iterable[Attempt]) -> str:
    """Say in a sentence how many would move, of those who are in a segment before or after."""
    found = [a.summary for a in attempts if a.summary and "movements" in a.summary]
    of = sum(summary["customers"] for summary in found)
    moved = sum(one["customers"] for summary in found for one in summary["movements"])
    return (
        f"{moved:,} of {counted(of, 'customer')} at {counted(len(found), 'venue')} would move "
        "between segments."
    )
