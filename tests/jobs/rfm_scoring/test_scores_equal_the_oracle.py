"""Every column of every view equals the oracle's, whatever a source holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.jobs.rfm_scoring import rfm_oracle as oracle
from tests.jobs.rfm_scoring.rfm_oracle import (
    Customer,
    Order,
    Refund,
    Rules,
    Source,
    Standing,
    Venue,
)
from tests.jobs.rfm_scoring.scoring import (
    OTHER_TENANT,
    TENANT,
    VIEWS,
    House,
    PlatformHouse,
    SimpleHouse,
    uid,
)

pytestmark = pytest.mark.long

#: All examples share one database, so the fixture need not be reset for each.
on_real_servers = settings(
    max_examples=2 * settings().max_examples,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MICROSECOND, SECOND = timedelta(microseconds=1), timedelta(seconds=1)
TENANTS = (TENANT, OTHER_TENANT)
VENUES = (
    Venue(uid("hall"), TENANT),
    Venue(uid("club"), TENANT),
    Venue(uid("arena"), TENANT),
    Venue(uid("stage"), OTHER_TENANT),
    Venue(uid("nobody's"), None),
)
BUYERS = tuple(uid(f"buyer {number}") for number in range(8))

as_ofs = st.sampled_from(
    [
        datetime(2024, 3, 1, tzinfo=UTC),  # the day after a leap day
        datetime(2024, 3, 31, 1, tzinfo=UTC),  # clocks go forward in Berlin
        datetime(2024, 11, 3, 6, tzinfo=UTC),  # clocks go back in New York
        datetime(2024, 7, 1, 12, 34, 56, 789012, tzinfo=UTC),
    ]
)
#: Times before as_of: on each threshold and on both sides of it.
ages = st.builds(
    lambda days, off: timedelta(days=days) + off,
    st.sampled_from([0, 1, 30, 31, 60, 61, 90, 91, 180, 181, 400]),
    st.sampled_from([timedelta(0), MICROSECOND, -MICROSECOND, SECOND, -SECOND]),
)
#: Few amounts, so that many tie; the last two are the largest that counts and one too large.
cents = st.sampled_from([0, 0, 1, 500, 500, 1000, 1000, 1001, 1005, 9999])
odd_cents = cents | st.sampled_from([None, -1, -1000, 999_999_999_999, 1_000_000_000_000])
#: Mostly the audited rules; otherwise rules with other bounds and a look-back.
rules = st.just(Rules()) | st.builds(
    Rules,
    recency_days=st.sampled_from([(30, 60, 90, 180), (0, 1, 31, 400)]),
    frequency_purchases=st.sampled_from([(10, 7, 4, 2), (5, 4, 3, 2)]),
    monetary_percent=st.sampled_from([(80, 60, 40, 20), (100, 67, 34, 1)]),
    lookback_days=st.sampled_from([None, 30, 180]),
    vip_min_total=st.sampled_from([12, 15]),
    at_risk_max_days=st.sampled_from([180, 30]),
    high_risk_after_days=st.sampled_from([180, 90]),
    high_risk_min_purchases=st.sampled_from([3, 1]),
    currency=st.sampled_from([None, "EUR"]),
)


def lists_of_any_length(
    orders: st.SearchStrategy[dict[str, Any]],
) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Draw none, one, some or many; by itself, Hypothesis seldom draws more than five."""
    return st.sampled_from([60, 25, 5, 1, 0]).flatmap(
        lambda length: st.lists(orders, min_size=length, max_size=length)
    )


@st.composite
def simple_orders(draw: st.DrawFn) -> dict[str, Any]:
    """Draw an order of the adapter `simple`, at any venue or none, by any customer or none."""
    return {
        "tenant_id": draw(st.sampled_from([TENANT, TENANT, OTHER_TENANT])),
        "user_id": draw(st.sampled_from([*BUYERS, None])),
        "venue_id": draw(
            st.sampled_from([VENUES[0].venue_id] * 4 + [v.venue_id for v in VENUES])
            | st.sampled_from([uid("unknown venue"), None])
        ),
        "status": draw(
            st.sampled_from(["completed"] * 6 + ["refunded", "pending", "cancelled", "odd", None])
        ),
        "cents": draw(odd_cents),
        "age": draw(ages | st.none()),
    }


@on_real_servers
@given(
    as_of=as_ofs,
    drawn=lists_of_any_length(simple_orders()),
    known=st.sets(st.sampled_from(BUYERS)),
    rules=rules,
    later=st.timedeltas(timedelta(microseconds=1), timedelta(days=100)),
)
def test_the_adapter_simple(
    simple_house: SimpleHouse,
    as_of: datetime,
    drawn: list[dict[str, Any]],
    known: set[UUID],
    rules: Rules,
    later: timedelta,
) -> None:
    rows = [
        {
            "id": uuid5(TENANT, str(number)),
            "tenant_id": one["tenant_id"],
            "user_id": one["user_id"],
            "venue_id": one["venue_id"],
            "status": one["status"],
            "total_amount": _units(one["cents"]),
            "created_at": None if one["age"] is None else as_of - one["age"],
        }
        for number, one in enumerate(drawn)
    ]
    rules = replace(rules, currency=None)  # the adapter `simple` has only one currency
    status = {"completed": "paid", "refunded": "refunded"}
    source = Source(
        venues=VENUES,
        orders=[
            Order(
                row["id"],
                row["tenant_id"],
                row["venue_id"],
                row["user_id"],
                row["created_at"],
                status.get(row["status"], "cancelled"),
                row["total_amount"],
            )
            for row in rows
        ],
        refunds=[
            Refund(row["id"], row["tenant_id"], row["created_at"], row["total_amount"])
            for row in rows
            if row["status"] == "refunded"
            and row["created_at"] is not None
            and row["total_amount"] is not None
        ],
        customers=[Customer(user, None) for user in known],
    )
    simple_house.clear()
    simple_house.insert("orders", rows)
    simple_house.insert("users", [{"id": user} for user in known])
    _insert_venues(simple_house)
    standing = _score_and_compare(simple_house, source, as_of, rules, {})
    _score_and_compare(simple_house, source, as_of + later, rules, standing)


@st.composite
def platform_orders(draw: st.DrawFn) -> dict[str, Any]:
    """Draw an order of the platform with refunds: full, partial, excessive, pending or failed."""
    refund = st.fixed_dictionaries(
        {
            "cents": st.sampled_from([0, 1, 500, 999, 1000, 1001, 20_000]),
            "status": st.sampled_from(["COMPLETED", "COMPLETED", "PENDING", "FAILED"]),
            "age": ages | ages.map(lambda age: -age),
        }
    )
    return {
        "tenant_id": draw(st.sampled_from([TENANT, TENANT, OTHER_TENANT])),
        "user_id": draw(st.sampled_from([*BUYERS, None])),
        "event": draw(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5])),
        "status": draw(
            st.sampled_from(
                ["CONFIRMED", "COMPLETED", "PAID", "REFUND_INITIATED"] * 2
                + ["REFUNDED"] * 3
                + ["PENDING", "RESERVED", "CANCELLED", "EXPIRED", "PAYMENT_FAILED"]
            )
        ),
        "cents": draw(odd_cents),
        # mostly that of the event
        "currency": draw(st.sampled_from(["", "", "", "", "USD", "EUR", None])),
        "age": draw(ages),
        "updated_age": draw(ages | ages.map(lambda age: -age)),
        "refunds": draw(st.lists(refund, max_size=2)),
    }


@st.composite
def platform_users(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw the accounts: where each is registered, whether deleted, and whether to be erased."""
    return [
        {
            "id": user,
            "tenant_id": draw(st.sampled_from([TENANT, TENANT, OTHER_TENANT])),
            "status": draw(st.sampled_from(["ACTIVE", "ACTIVE", "DELETED"])),
            "deleted_at": draw(st.sampled_from([None, None, datetime(2020, 1, 1, tzinfo=UTC)])),
            "erasure": draw(st.sampled_from([None] * 4 + ["PENDING", "COMPLETED", "REJECTED"])),
        }
        for user in sorted(draw(st.sets(st.sampled_from(BUYERS), min_size=3)))
    ]


@pytest.mark.both_versions
@on_real_servers
@given(
    as_of=as_ofs,
    drawn=lists_of_any_length(platform_orders()),
    users=platform_users(),
    users_later=platform_users(),
    event_venues=st.permutations([*range(5), 0]),
    event_venues_later=st.permutations([*range(5), 0]),
    event_currencies=st.lists(st.sampled_from(["USD", "EUR"]), min_size=6, max_size=6),
    rules=rules,
    later=st.timedeltas(timedelta(microseconds=1), timedelta(days=100)),
)
def test_the_adapter_platform(
    platform_house: PlatformHouse,
    as_of: datetime,
    drawn: list[dict[str, Any]],
    users: list[dict[str, Any]],
    users_later: list[dict[str, Any]],
    event_venues: list[int],
    event_venues_later: list[int],
    event_currencies: list[str],
    rules: Rules,
    later: timedelta,
) -> None:
    orders = [
        {
            "id": uuid5(TENANT, str(number)),
            "tenant_id": one["tenant_id"],
            "user_id": one["user_id"],
            "event_id": uid(f"event {one['event']}"),
            "status": one["status"],
            "total_cents": one["cents"],
            "currency": event_currencies[one["event"]]
            if one["currency"] == ""
            else one["currency"],
            "ticket_quantity": 1,
            "created_at": as_of - one["age"],
            "updated_at": as_of - one["updated_age"],
        }
        for number, one in enumerate(drawn)
    ]
    refunds = [
        {
            "id": uuid5(order["id"], str(number)),
            "tenant_id": order["tenant_id"],
            "order_id": order["id"],
            "refund_amount_cents": refund["cents"],
            "refund_status": refund["status"],
            "created_at": as_of - refund["age"],
            "updated_at": as_of,
        }
        for order, one in zip(orders, drawn, strict=True)
        for number, refund in enumerate(one["refunds"])
    ]
    platform_house.clear()
    platform_house.insert("orders", orders)
    platform_house.insert("order_refunds", refunds)
    standing: dict[UUID, Standing] = {}
    for moment, people, houses in (
        (as_of, users, event_venues),
        (as_of + later, users_later, event_venues_later),
    ):
        with platform_house.superuser.transaction():
            for table in ("users", "gdpr_deletion_requests", "events", "venues"):
                platform_house.superuser.execute(f"DELETE FROM {table}")  # noqa: S608
            _insert_users(platform_house, people)
            _insert_events(platform_house, houses)
            _insert_venues(platform_house)
        source = _platform_source(orders, refunds, people, houses)
        standing = _score_and_compare(platform_house, source, moment, rules, standing)


def _platform_source(
    orders: Sequence[Mapping[str, Any]],
    refunds: Sequence[Mapping[str, Any]],
    users: Sequence[Mapping[str, Any]],
    event_venues: Sequence[int],
) -> Source:
    """Read the platform's tables in the domain's terms."""
    status = dict.fromkeys(("CONFIRMED", "COMPLETED", "PAID", "REFUND_INITIATED"), "paid") | {
        "REFUNDED": "refunded",
        "PENDING": "pending",
        "RESERVED": "pending",
    }
    venue_of = {
        uid(f"event {number}"): VENUES[venue].venue_id for number, venue in enumerate(event_venues)
    }
    completed = [refund for refund in refunds if refund["refund_status"] == "COMPLETED"]
    with_refunds = {refund["order_id"] for refund in completed}
    return Source(
        venues=VENUES,
        orders=[
            Order(
                order["id"],
                order["tenant_id"],
                venue_of[order["event_id"]],
                order["user_id"],
                order["created_at"],
                status.get(order["status"], "cancelled"),
                _units(order["total_cents"]),
                order["currency"],
            )
            for order in orders
        ],
        refunds=[
            Refund(
                refund["order_id"],
                refund["tenant_id"],
                refund["created_at"],
                Decimal(refund["refund_amount_cents"]) / 100,
            )
            for refund in completed
        ]
        + [
            Refund(
                order["id"],
                order["tenant_id"],
                order["updated_at"],
                Decimal(order["total_cents"]) / 100,
            )
            for order in orders
            if order["status"] == "REFUNDED"
            and order["id"] not in with_refunds
            and order["total_cents"] is not None
        ],
        customers=[
            Customer(
                user["id"],
                user["tenant_id"],
                deleted=user["deleted_at"] is not None or user["status"] == "DELETED",
                erased=user["erasure"] in ("PENDING", "COMPLETED"),
            )
            for user in users
        ],
    )


def _score_and_compare(
    house: House,
    source: Source,
    as_of: datetime,
    rules: Rules,
    standing: Mapping[UUID, Standing],
) -> dict[UUID, Standing]:
    """Run the job as of a moment and compare all views; return what the next run keeps."""
    scoring = house.run(as_of, rules=rules)
    assert scoring.unfinished == []
    scores = [
        oracle.score_venue(source, venue, as_of, rules, standing.get(venue.venue_id, Standing()))
        for venue in source.venues
        if venue.tenant_id is not None and venue.open
    ]
    assert set(scoring.attempts) == {venue.venue_id for venue in scores}
    for tenant_id in TENANTS:
        own = [venue for venue in scores if venue.tenant_id == tenant_id]
        expected = {
            "customer_rfm_scores": oracle.customer_rfm_scores(own),
            "customer_segments": oracle.customer_segments(own),
            "customer_venue_value": oracle.customer_venue_value(own),
            "customer_lifetime_value": oracle.customer_lifetime_value(own),
        }
        for name, key in VIEWS.items():
            wanted = sorted(expected[name], key=lambda row: [row[column] for column in key])
            found = sorted(
                house.view(name, tenant_id),
                key=lambda row: [row[column] for column in key],
            )
            assert found == wanted, name
    return {venue.venue_id: venue.standing for venue in scores}


def _units(amount_cents: int | None) -> Decimal | None:
    return None if amount_cents is None else Decimal(amount_cents) / 100


def _insert_venues(house: House) -> None:
    platform = {
        "max_capacity": 100,
        "status": "ACTIVE",
        "created_at": datetime(2020, 1, 1, tzinfo=UTC),
        "updated_at": datetime(2020, 1, 1, tzinfo=UTC),
    }
    house.insert(
        "venues",
        [
            {"id": venue.venue_id, "tenant_id": venue.tenant_id, "name": str(venue.venue_id)[:8]}
            | (platform if isinstance(house, PlatformHouse) else {})
            for venue in VENUES
        ],
    )


def _insert_events(house: House, event_venues: Sequence[int]) -> None:
    """Insert each event at its venue, and in the venue's tenant if it has one."""
    house.insert(
        "events",
        [
            {
                "id": uid(f"event {number}"),
                "tenant_id": VENUES[venue].tenant_id or TENANT,
                "venue_id": VENUES[venue].venue_id,
                "name": f"event {number}",
                "category": "music",
                "status": "PUBLISHED",
                "created_at": datetime(2020, 1, 1, tzinfo=UTC),
                "updated_at": datetime(2020, 1, 1, tzinfo=UTC),
            }
            for number, venue in enumerate(event_venues)
        ],
    )


def _insert_users(house: House, users: Sequence[Mapping[str, Any]]) -> None:
    at = datetime(2020, 1, 1, tzinfo=UTC)
    house.insert(
        "users",
        [
            {name: user[name] for name in ("id", "tenant_id", "status", "deleted_at")}
            | {"email": "somebody@example.org", "created_at": at, "updated_at": at}
            for user in users
        ],
    )
    house.insert(
        "gdpr_deletion_requests",
        [
            {
                "id": uuid5(user["id"], "erasure"),
                "tenant_id": user["tenant_id"],
                "user_id": user["id"],
                "status": user["erasure"],
                "created_at": at,
                "updated_at": at,
            }
            for user in users
            if user["erasure"] is not None
        ],
    )
