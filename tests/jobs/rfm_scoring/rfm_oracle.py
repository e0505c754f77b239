"""RFM scoring as the domain describes it, slow and in exact arithmetic; the SQL must equal it.

Rows are dicts keyed by the views' columns, so that a missing or extra column is a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

Row = dict[str, Any]
SEGMENTS = ("VIP", "Regular", "At-Risk", "Lost")
STANDARD_SEGMENTS = (
    "Champions",
    "Loyal",
    "Can't Lose",
    "At Risk",
    "New",
    "Promising",
    "Potential Loyalist",
    "Need Attention",
    "About to Sleep",
    "Hibernating",
    "Lost",
)
DAY = timedelta(hours=24)
TOO_LARGE = Decimal(10) ** 10
PLATFORM_STATUS = dict.fromkeys(("CONFIRMED", "COMPLETED", "PAID", "REFUND_INITIATED"), "paid") | {
    "REFUNDED": "refunded",
    "PENDING": "pending",
    "RESERVED": "pending",
}
JULIAN_YEAR = Fraction("365.25")


@dataclass(frozen=True)
class Venue:
    """A row of source.venues."""

    venue_id: UUID
    tenant_id: UUID | None
    currency: str | None = None
    open: bool = True


@dataclass(frozen=True)
class Order:
    """A row of source.orders."""

    order_id: UUID
    tenant_id: UUID
    venue_id: UUID | None
    customer_id: UUID | None
    ordered_at: datetime | None
    status: str
    amount: Decimal | None
    currency: str | None = "USD"


@dataclass(frozen=True)
class Refund:
    """A row of source.refunds."""

    order_id: UUID
    tenant_id: UUID
    refunded_at: datetime
    amount: Decimal


@dataclass(frozen=True)
class Customer:
    """A row of source.customers."""

    customer_id: UUID
    tenant_id: UUID | None
    deleted: bool = False
    erased: bool = False


@dataclass(frozen=True)
class Source:
    """Everything that the jobs may read."""

    venues: Sequence[Venue] = ()
    orders: Sequence[Order] = ()
    refunds: Sequence[Refund] = ()
    customers: Sequence[Customer] = ()


@dataclass(frozen=True)
class Rules:
    """The audited service's thresholds, and the rule set for segments and churn risk."""

    recency_days: tuple[int, int, int, int] = (30, 60, 90, 180)
    frequency_purchases: tuple[int, int, int, int] = (10, 7, 4, 2)
    monetary_percent: tuple[int, int, int, int] = (80, 60, 40, 20)
    lookback_days: int | None = None
    vip_min_total: int = 12
    regular_min_total: int = 8
    at_risk_min_total: int = 5
    at_risk_max_days: int = 180
    high_risk_after_days: int = 180
    high_risk_min_purchases: int = 3
    medium_risk_after_days: int = 90
    medium_risk_min_purchases: int = 2
    currency: str | None = None
    rule_set: str = "audited"

    @property
    def segments(self) -> tuple[str, ...]:
        """The names of the segments."""
        return STANDARD_SEGMENTS if self.rule_set == "standard" else SEGMENTS


@dataclass(frozen=True)
class Standing:
    """What a later run keeps of a venue's earlier results."""

    main_currency: str | None = None
    created_at: Mapping[UUID, datetime] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredCustomer:
    """A customer of a venue, with unrounded values."""

    customer_id: UUID
    purchases: int
    spent: Decimal
    first: datetime
    last: datetime
    created_at: datetime
    recency: int
    frequency: int
    monetary: int
    segment: str
    churn_risk: str
    known: bool


@dataclass(frozen=True)
class VenueScores:
    """A venue's customers as of a moment: the whole population of its percentiles."""

    venue_id: UUID
    tenant_id: UUID
    as_of: datetime
    currency: str | None
    main_currency: str | None
    population: tuple[ScoredCustomer, ...]
    segments: tuple[str, ...] = SEGMENTS

    @property
    def shown(self) -> list[ScoredCustomer]:
        """The customers whom the source knows; the others count only in the percentiles."""
        return [customer for customer in self.population if customer.known]

    @property
    def standing(self) -> Standing:
        """What the next run finds of these results."""
        return Standing(self.main_currency, {c.customer_id: c.created_at for c in self.population})


def platform_source(tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> Source:
    """Convert rows of the platform's tables, by table name, to the domain's terms.

    Row-level security is ignored: a row belongs to the tenant that it names.
    """
    venue_of = {event["id"]: event["venue_id"] for event in tables["events"]}
    orders = {order["id"]: order for order in tables["orders"]}
    refunds = [
        Refund(
            refund["order_id"],
            orders[refund["order_id"]]["tenant_id"],
            refund["created_at"],
            _units(refund["refund_amount_cents"]),
        )
        for refund in tables["order_refunds"]
        if refund["refund_status"] == "COMPLETED" and refund["order_id"] in orders
    ]
    with_refunds = {refund.order_id for refund in refunds}
    refunds += [
        Refund(order["id"], order["tenant_id"], order["updated_at"], _units(order["total_cents"]))
        for order in orders.values()
        if order["status"] == "REFUNDED"
        and order["id"] not in with_refunds
        and order["total_cents"] is not None
    ]
    erased = {
        request["user_id"]
        for request in tables["gdpr_deletion_requests"]
        if request["status"] not in ("REJECTED", "CANCELLED")
    }
    customers = [
        Customer(
            user["id"],
            user["tenant_id"],
            deleted=user["deleted_at"] is not None or user["status"] == "DELETED",
            erased=user["id"] in erased,
        )
        for user in tables["users"]
    ]
    accounts = {customer.customer_id for customer in customers}
    return Source(
        venues=[
            Venue(
                venue["id"],
                venue["tenant_id"],
                open=venue["deleted_at"] is None
                and venue["status"] not in ("CLOSED", "DELETED", "ARCHIVED"),
            )
            for venue in tables["venues"]
        ],
        orders=[
            Order(
                order["id"],
                order["tenant_id"],
                venue_of.get(order["event_id"]),
                order["user_id"],
                order["created_at"],
                PLATFORM_STATUS.get(order["status"], "cancelled"),
                None if order["total_cents"] is None else _units(order["total_cents"]),
                order["currency"],
            )
            for order in orders.values()
        ],
        refunds=refunds,
        customers=customers + [Customer(who, None, True, True) for who in erased - accounts],
    )


def half_away(value: Fraction | Decimal | int, places: int = 2) -> Decimal:
    """Round half away from zero."""
    scaled = Fraction(value) * 10**places
    whole = int(abs(scaled) + Fraction(1, 2))
    return Decimal(-whole if scaled < 0 else whole).scaleb(-places)


def whole_days(since: datetime, until: datetime) -> int:
    """Count whole days of 24 hours."""
    return (until - since) // DAY


def score_venue(
    source: Source,
    venue: Venue,
    as_of: datetime,
    rules: Rules = Rules(),
    standing: Standing = Standing(),
) -> VenueScores:
    """Score the customers of one open venue that has a tenant."""
    if venue.tenant_id is None:
        raise ValueError(f"venue {venue.venue_id} has no tenant")
    sales = [
        (order.ordered_at, order)
        for order in source.orders
        if order.venue_id == venue.venue_id
        and order.tenant_id == venue.tenant_id
        and order.status in ("paid", "refunded")
        and order.ordered_at is not None
        and order.ordered_at < as_of
    ]
    main_currency = standing.main_currency or _most_frequent(o.currency for _, o in sales)
    currency = rules.currency or venue.currency or main_currency
    bought: dict[UUID, list[tuple[datetime, Decimal]]] = {}
    for ordered_at, order in sales:
        if rules.lookback_days and ordered_at < as_of - rules.lookback_days * DAY:
            continue
        value = _value(source, order, as_of)
        if value is None or order.customer_id is None:
            continue
        if order.currency is None or order.currency != currency:
            continue
        if not _erased(source, order.customer_id, venue.tenant_id):
            bought.setdefault(order.customer_id, []).append((ordered_at, value))
    spent = {who: sum((v for _, v in them), Decimal(0)) for who, them in bought.items()}
    population = []
    for who, them in bought.items():
        last = max(at for at, _ in them)
        days = whole_days(last, as_of)
        less = sum(1 for other in spent.values() if other < spent[who])
        recency = _score([days <= bound for bound in rules.recency_days])
        frequency = _score([len(them) >= bound for bound in rules.frequency_purchases])
        monetary = _score(
            [Fraction(100 * less, len(spent)) >= bound for bound in rules.monetary_percent]
        )
        population.append(
            ScoredCustomer(
                customer_id=who,
                purchases=len(them),
                spent=spent[who],
                first=min(at for at, _ in them),
                last=last,
                created_at=standing.created_at.get(who, as_of),
                recency=recency,
                frequency=frequency,
                monetary=monetary,
                segment=segment_of(recency, frequency, monetary, days, rules),
                churn_risk=_churn_risk(recency, frequency, days, len(them), rules),
                known=_known(source, who, venue.tenant_id),
            )
        )
    return VenueScores(
        venue.venue_id,
        venue.tenant_id,
        as_of,
        currency,
        main_currency,
        tuple(population),
        rules.segments,
    )


def customer_rfm_scores(scores: Iterable[VenueScores]) -> list[Row]:
    """Return the rows of the view of that name."""
    return [
        {
            "customer_id": c.customer_id,
            "venue_id": venue.venue_id,
            "tenant_id": venue.tenant_id,
            "recency_score": c.recency,
            "frequency_score": c.frequency,
            "monetary_score": c.monetary,
            "total_score": c.recency + c.frequency + c.monetary,
            "days_since_last_purchase": whole_days(c.last, venue.as_of),
            "total_purchases": c.purchases,
            "total_spent": half_away(c.spent),
            "average_order_value": half_away(Fraction(c.spent) / c.purchases),
            "segment": c.segment,
            "churn_risk": c.churn_risk,
            "calculated_at": venue.as_of,
            "created_at": c.created_at,
            "updated_at": venue.as_of,
        }
        for venue in scores
        for c in venue.shown
    ]


def customer_segments(scores: Iterable[VenueScores]) -> list[Row]:
    """Return the rows of the table of that name: all segments, empty ones with zeros."""
    rows = []
    for venue in scores:
        for segment in venue.segments:
            them = [c for c in venue.shown if c.segment == segment]
            spent = Fraction(sum((c.spent for c in them), Decimal(0)))
            purchases = sum(c.purchases for c in them)
            days = sum(max(whole_days(c.first, venue.as_of), 30) for c in them)
            rows.append(
                {
                    "venue_id": venue.venue_id,
                    "tenant_id": venue.tenant_id,
                    "segment_name": segment,
                    "customer_count": len(them),
                    "total_revenue": half_away(spent),
                    "avg_order_value": half_away(spent / purchases if them else 0),
                    "avg_lifetime_value": half_away(spent / len(them) if them else 0),
                    "avg_purchase_frequency": half_away(
                        purchases / Fraction(days) * JULIAN_YEAR if them else 0
                    ),
                    "last_calculated_at": venue.as_of,
                }
            )
    return rows


def customer_venue_value(scores: Iterable[VenueScores]) -> list[Row]:
    """Return the rows of the view of that name."""
    return [
        {
            "customer_id": c.customer_id,
            "venue_id": venue.venue_id,
            "tenant_id": venue.tenant_id,
            "currency": venue.currency,
            **_value_columns(c.spent, c.purchases, c.first, c.last, venue.as_of),
        }
        for venue in scores
        for c in venue.shown
    ]


def customer_lifetime_value(scores: Sequence[VenueScores]) -> list[Row]:
    """Return the rows of the view of that name, over all venues in the tenant's currency."""
    rows = []
    for tenant_id in {venue.tenant_id for venue in scores}:
        own = [venue for venue in scores if venue.tenant_id == tenant_id]
        currency = _most_frequent(venue.currency for venue in own)
        of_customer: dict[UUID, list[tuple[VenueScores, ScoredCustomer]]] = {}
        for venue in own:
            for c in venue.shown:
                of_customer.setdefault(c.customer_id, []).append((venue, c))
        for customer_id, everywhere in of_customer.items():
            counted = [(v, c) for v, c in everywhere if v.currency == currency]
            if not counted:
                continue
            rows.append(
                {
                    "customer_id": customer_id,
                    "tenant_id": tenant_id,
                    "venue_id": None,
                    "currency": currency,
                    "venues_left_out": len(everywhere) - len(counted),
                    **_value_columns(
                        sum((c.spent for _, c in counted), Decimal(0)),
                        sum(c.purchases for _, c in counted),
                        min(c.first for _, c in counted),
                        max(c.last for _, c in counted),
                        max(v.as_of for v, _ in counted),
                    ),
                }
            )
    return rows


def _value_columns(
    spent: Decimal, purchases: int, first: datetime, last: datetime, as_of: datetime
) -> Row:
    lifespan = max(whole_days(first, as_of), 1)
    frequency = purchases / Fraction(max(lifespan, 30)) * JULIAN_YEAR
    days = whole_days(last, as_of)
    churn = Fraction(
        "0.1" if days <= 60 else "0.2" if days <= 90 else "0.4" if days <= 180 else "0.7"
    )
    average = Fraction(spent) / purchases
    in_12_months = average * frequency * (1 - churn)
    return {
        "clv": half_away(spent),
        "avg_order_value": half_away(average),
        "purchase_frequency": half_away(frequency),
        "customer_lifespan_days": lifespan,
        "total_purchases": purchases,
        "total_revenue": half_away(spent),
        "predicted_clv_12_months": half_away(in_12_months),
        "predicted_clv_24_months": half_away(in_12_months * (2 - churn)),
        "churn_probability": half_away(churn, 4),
        "calculated_at": as_of,
    }


def _units(cents: int) -> Decimal:
    return Decimal(cents) / 100


def _value(source: Source, order: Order, as_of: datetime) -> Decimal | None:
    """Return the value of an order as of a moment; None if it is not a purchase."""
    if order.amount is None or not 0 <= order.amount < TOO_LARGE:
        return None
    refunds = [
        refund.amount
        for refund in source.refunds
        if refund.order_id == order.order_id
        and refund.tenant_id == order.tenant_id
        and refund.refunded_at < as_of
        and refund.amount >= 0
    ]
    refunded = sum(refunds, Decimal(0))
    if refunds and refunded >= order.amount:
        return None
    return order.amount - refunded


def _rows_of_customer(source: Source, customer_id: UUID, tenant_id: UUID) -> list[Customer]:
    """Return the customer's row of the tenant, then the row without a tenant."""
    rows = [c for c in source.customers if c.customer_id == customer_id]
    own = [c for c in rows if c.tenant_id == tenant_id]
    return own + [c for c in rows if c.tenant_id is None]


def _known(source: Source, customer_id: UUID, tenant_id: UUID) -> bool:
    rows = _rows_of_customer(source, customer_id, tenant_id)
    return bool(rows) and not rows[0].deleted


def _erased(source: Source, customer_id: UUID, tenant_id: UUID) -> bool:
    return any(row.erased for row in _rows_of_customer(source, customer_id, tenant_id))


def _score(met: Sequence[bool]) -> int:
    """Return 5 for the first bound met, 4 for the second, …; 1 for none."""
    return next((score for score, yes in zip((5, 4, 3, 2), met, strict=True) if yes), 1)


def segment_of(recency: int, frequency: int, monetary: int, days: int, rules: Rules) -> str:
    """Return the segment for three scores and the days since the last purchase."""
    if rules.rule_set == "standard":
        return _standard_segment(recency, frequency, monetary)
    total = recency + frequency + monetary
    if total >= rules.vip_min_total:
        return "VIP"
    if total >= rules.regular_min_total:
        return "Regular"
    if total >= rules.at_risk_min_total and days <= rules.at_risk_max_days:
        return "At-Risk"
    return "Lost"


def _standard_segment(r: int, f: int, m: int) -> str:
    """Decide by recency first, unlike the domain's description, in which the first match wins."""
    often, worth = f + m >= 6, f >= 4 and m >= 4
    if r == 1:
        return "Can't Lose" if worth else "At Risk" if f >= 2 and often else "Lost"
    if r == 2:
        return "At Risk" if f >= 2 and often else "Hibernating"
    if r >= 4 and worth:
        return "Champions"
    if f >= 3 and often:
        return "Loyal"
    if r == 3:
        return "Need Attention" if f + m >= 5 else "About to Sleep"
    if f == 1:
        return "New" if r == 5 else "Promising"
    return "Potential Loyalist"


def _churn_risk(recency: int, frequency: int, days: int, purchases: int, rules: Rules) -> str:
    if rules.rule_set == "standard":
        if recency <= 2:
            return "high" if frequency >= 3 else "medium"
        return "medium" if recency == 3 else "low"
    if days > rules.high_risk_after_days and purchases >= rules.high_risk_min_purchases:
        return "high"
    if days > rules.medium_risk_after_days and purchases >= rules.medium_risk_min_purchases:
        return "medium"
    return "low"


def _most_frequent(names: Iterable[str | None]) -> str | None:
    counts = Counter(name for name in names if name is not None)
    return min(counts, key=lambda name: (-counts[name], name), default=None)
