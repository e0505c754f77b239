"""Reports of RFM scoring: segments and spending; in a dry run, movements between segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from venue_analytics.harness import Column, Report, Table, UnitResult, counted, format_moment
from venue_analytics.jobs.rfm_scoring.rules import SEGMENT_CODES

#: Most segments that are columns of the venues' table; more have a table of their own.
SEGMENTS_BESIDE = 4
#: Shown instead of a segment for customers that have none, before or after.
NONE = "(none)"


def report(results: Mapping[UUID, UnitResult]) -> Report:
    """Return the customers of each venue, by segment, and what they spent there."""
    in_segment: Counter[str] = Counter()
    at_venues: Counter[str] = Counter()
    spent: dict[str, Decimal] = {}
    left_out: Counter[str] = Counter()
    for one in results.values():
        in_segment.update(one.summary["segments"])
        at_venues.update(one.summary["segments"].keys())
        left_out.update(one.left_out)
        if currency := one.summary["currency"]:
            spent[currency] = spent.get(currency, Decimal(0)) + Decimal(one.summary["revenue"])
    segments = sorted(in_segment, key=SEGMENT_CODES.__getitem__)
    customers = Column(
        "Customers",
        {venue_id: f"{one.summary['customers']:,}" for venue_id, one in results.items()},
        f"{sum(one.summary['customers'] for one in results.values()):,}",
    )
    by_segment = [
        Column(
            name,
            {v: f"{one.summary['segments'].get(name, 0):,}" for v, one in results.items()},
            f"{in_segment[name]:,}",
        )
        for name in segments
    ]
    table = Table(
        ("Segment", "Customers", "Venues"),
        [(name, f"{in_segment[name]:,}", f"{at_venues[name]:,}") for name in segments],
        numbers=("Customers", "Venues"),
    )
    in_currencies = Column(
        "Spent",
        {
            v: f"{Decimal(one.summary['revenue']):,.2f} {one.summary['currency'] or '   '}"
            for v, one in results.items()
        },
        "\n".join(f"{amount:,.2f} {code}" for code, amount in sorted(spent.items())),
    )
    fits = len(segments) <= SEGMENTS_BESIDE
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
    return Report(
        columns=(customers, *(by_segment if fits else ()), in_currencies),
        tables=() if fits else (table,),
        lines=(f"Sales that do not count as purchases: {kinds}",) if left_out else (),
    )


def report_preview(results: Mapping[UUID, UnitResult]) -> Report:
    """Return how many customers would move between segments, over all venues, and their spend."""
    found = [one.summary for one in results.values()]
    moved = _movements(found)
    table = Table(
        ("From", "To", "Customers", "Spent"),
        [
            (one.before, one.after, f"{one.customers:,}", f"{one.spent:,.2f} {one.currency}")
            for one in moved
        ],
        numbers=("Customers", "Spent"),
    )
    count = sum(one["customers"] for summary in found for one in summary["movements"])
    of = counted(sum(summary["customers"] for summary in found), "customer")
    lines = [f"{count:,} of {of} at {counted(len(found), 'venue')} would move between segments."]
    if moments := sorted(datetime.fromisoformat(summary["as_of"]) for summary in found):
        later = f" to {format_moment(moments[-1])}" if moments[-1] > moments[0] else ""
        lines.insert(0, f"Compared with what stands as of {format_moment(moments[0])}{later}.")
    return Report(tables=(table,) if moved else (), lines=lines)


@dataclass(frozen=True)
class _Movement:
    """Customers who would move between two segments.

    Attributes:
        before: their segment now; `NONE` if they have none.
        after: their segment under the new settings; `NONE` if they would have none.
        currency: ISO 4217 code of `spent`; empty if unknown.
        customers: their number, over all venues.
        spent: their spend at these venues in units of the currency: under the new settings, or
            the current one for customers who would no longer count.
    """

    before: str
    after: str
    currency: str
    customers: int
    spent: Decimal


def _movements(found: list[Mapping[str, Any]]) -> list[_Movement]:
    """Return the movements of a dry run, summed over its venues; the largest first."""
    totals: dict[tuple[str, str, str], tuple[int, int]] = {}
    for summary in found:
        for one in summary["movements"]:
            currency = summary["currency_before" if one["left"] else "currency"]
            key = (one["from"] or NONE, one["to"] or NONE, currency or "")
            customers, cents = totals.get(key, (0, 0))
            totals[key] = (customers + one["customers"], cents + one["spent_cents"])
    moved = [
        _Movement(*key, customers, Decimal(cents).scaleb(-2))
        for key, (customers, cents) in totals.items()
    ]
    return sorted(moved, key=lambda one: (-one.customers, one.before, one.after, one.currency))
