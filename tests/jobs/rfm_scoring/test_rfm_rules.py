"""Each rule of RFM scoring at its edges, one rule per test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis
from tests.databases import Database
from tests.jobs.rfm_scoring.platform_nights import FIRST, Platform
from tests.jobs.rfm_scoring.rfm_oracle import Row, Rules, segment_of, whole_days
from tests.jobs.rfm_scoring.scoring import (
    AS_OF,
    OTHER_VENUE,
    TENANT,
    VENUE,
    House,
    PlatformHouse,
    Sale,
    SimpleHouse,
    make_settings,
    uid,
)

from venue_analytics.jobs.rfm_scoring.rules import segment, segments

pytestmark = pytest.mark.both_versions
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)


def ago(days: float) -> datetime:
    return AS_OF - timedelta(days=days)


def only(rows: dict[Any, Row]) -> Row:
    (row,) = rows.values()
    return row


def crowd(count: int, days: float = 1, amount: int = 0) -> list[Sale]:
    """Return other customers at the venue, each with one purchase of the same amount."""
    return [Sale(f"other {number}", ago(days), amount) for number in range(count)]


@pytest.mark.parametrize(
    ("days", "score"),
    [(0, 5), (30, 5), (31, 4), (60, 4), (61, 3), (90, 3), (91, 2), (180, 2), (181, 1)],
)
def test_recency_falls_after_30_60_90_and_180_days(
    simple_house: SimpleHouse, days: int, score: int
) -> None:
    row = only(
        simple_house.score(
            [Sale("anna", ago(days))] if days else [Sale("anna", AS_OF - MICROSECOND)]
        )
    )
    assert (row["recency_score"], row["days_since_last_purchase"]) == (score, days)


def test_the_last_microsecond_of_day_30_scores_5_and_the_next_scores_4(
    simple_house: SimpleHouse,
) -> None:
    scores = simple_house.score([Sale("still", ago(31) + MICROSECOND), Sale("no longer", ago(31))])
    assert scores[uid("still")]["recency_score"] == 5
    assert scores[uid("no longer")]["recency_score"] == 4


@pytest.mark.parametrize(
    ("purchases", "score"),
    [(1, 1), (2, 2), (3, 2), (4, 3), (6, 3), (7, 4), (9, 4), (10, 5), (11, 5)],
)
def test_frequency_rises_at_2_4_7_and_10_purchases(
    simple_house: SimpleHouse, purchases: int, score: int
) -> None:
    row = only(simple_house.score([Sale("anna", ago(day + 1)) for day in range(purchases)]))
    assert (row["frequency_score"], row["total_purchases"]) == (score, purchases)


def test_monetary_rises_where_20_40_60_and_80_percent_spent_less(simple_house: SimpleHouse) -> None:
    # of ten customers who each spent more than the last, 0, 1, …, 9 spent less
    scores = simple_house.score([Sale(f"{rank}", ago(1), 10 + rank) for rank in range(10)])
    found = [scores[uid(f"{rank}")]["monetary_score"] for rank in range(10)]
    assert found == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_customers_who_spent_the_same_share_the_lower_percentile(simple_house: SimpleHouse) -> None:
    # of five, one spent less than the four at 20: 1/5 = 20 %, at which the score is 2
    scores = simple_house.score(
        [Sale("low", ago(1), 10), *(Sale(f"tied {n}", ago(1), 20) for n in range(4))]
    )
    assert scores.pop(uid("low"))["monetary_score"] == 1
    assert {row["monetary_score"] for row in scores.values()} == {2}


def test_a_single_customer_has_the_lowest_monetary_score(simple_house: SimpleHouse) -> None:
    row = only(simple_house.score([Sale("anna", ago(1), 1_000_000)]))
    assert row["monetary_score"] == 1


def test_customers_who_all_spent_the_same_have_the_lowest_monetary_score(
    simple_house: SimpleHouse,
) -> None:
    scores = simple_house.score(crowd(9, amount=25))
    assert {row["monetary_score"] for row in scores.values()} == {1}


def test_unknown_customers_count_in_the_percentiles_and_get_no_row(
    simple_house: SimpleHouse,
) -> None:
    # four strangers spent less: 4/5 = 80 %
    simple_house.fill(
        [Sale("anna", ago(1), 50), *crowd(4, amount=1)], unknown=[f"other {n}" for n in range(4)]
    )
    assert simple_house.run().unfinished == []
    (row,) = simple_house.view("customer_rfm_scores")
    assert row["monetary_score"] == 5
    assert sum(s["customer_count"] for s in simple_house.view("customer_segments")) == 1


@pytest.mark.parametrize(
    ("recency", "frequency", "segment"),
    [
        (5, 5, "VIP"),  # 5 + 5 + 2 = 12
        (5, 4, "Regular"),  # 11
        (4, 2, "Regular"),  # 8
        (3, 2, "At-Risk"),  # 7
        (2, 1, "At-Risk"),  # 5
        (1, 1, "Lost"),  # 4
        (1, 2, "Lost"),  # 5, but beyond 180 days
        (1, 4, "Lost"),  # 7, but beyond 180 days
        (1, 5, "Regular"),  # 8, for which the days do not matter
    ],
)
def test_segments_begin_at_totals_of_12_8_and_5(
    simple_house: SimpleHouse, recency: int, frequency: int, segment: str
) -> None:
    days = {5: 30, 4: 60, 3: 90, 2: 180, 1: 181}[recency]
    purchases = {5: 10, 4: 7, 3: 4, 2: 2, 1: 1}[frequency]
    # one of four others spent less: 1/5 = 20 %, a monetary score of 2
    others = [Sale("least", ago(1), 0), *(Sale(f"most {n}", ago(1), 1000) for n in range(3))]
    scores = simple_house.score([*others, *(Sale("anna", ago(days), 1) for _ in range(purchases))])
    anna = scores[uid("anna")]
    assert (anna["total_score"], anna["segment"]) == (recency + frequency + 2, segment)


def test_a_total_of_5_is_at_risk_up_to_180_days_and_lost_after_them(
    simple_house: SimpleHouse,
) -> None:
    # day 180: 2 + 2 + 1; day 181: 1 + 3 + 1
    scores = simple_house.score(
        [Sale("day 180", ago(180), 10) for _ in range(2)]
        + [Sale("day 181", ago(181), 5) for _ in range(4)]
    )
    assert [
        (r["total_score"], r["segment"]) for r in (scores[uid("day 180")], scores[uid("day 181")])
    ] == [
        (5, "At-Risk"),
        (5, "Lost"),
    ]


@pytest.mark.parametrize(
    ("days", "purchases", "risk"),
    [
        (90, 9, "low"),
        (91, 1, "low"),
        (91, 2, "medium"),
        (180, 3, "medium"),
        (181, 2, "medium"),
        (181, 3, "high"),
        (181, 1, "low"),
    ],
)
def test_churn_risk_depends_on_days_and_purchases(
    simple_house: SimpleHouse, days: int, purchases: int, risk: str
) -> None:
    row = only(simple_house.score([Sale("anna", ago(days)) for _ in range(purchases)]))
    assert row["churn_risk"] == risk


@pytest.mark.parametrize(
    ("zone", "as_of"),
    [
        ("Europe/Berlin", datetime(2024, 3, 31, 12, tzinfo=ZoneInfo("Europe/Berlin"))),
        ("Europe/Berlin", datetime(2024, 10, 27, 12, tzinfo=ZoneInfo("Europe/Berlin"))),
        ("America/New_York", datetime(2024, 3, 10, 12, tzinfo=ZoneInfo("America/New_York"))),
        ("America/New_York", datetime(2024, 11, 3, 12, tzinfo=ZoneInfo("America/New_York"))),
    ],
)
def test_a_day_is_24_hours_on_the_nights_when_clocks_change(
    simple_house: SimpleHouse, zone: str, as_of: datetime
) -> None:
    moment = as_of.astimezone(UTC)
    simple_house.reader.execute("SELECT set_config('timezone', %s, FALSE)", [zone])
    scores = simple_house.score(
        [
            Sale("31 days", moment - 31 * DAY),
            Sale("a second less", moment - 31 * DAY + timedelta(seconds=1)),
        ],
        moment,
    )
    assert scores[uid("31 days")]["days_since_last_purchase"] == 31
    assert scores[uid("a second less")]["days_since_last_purchase"] == 30


def test_a_leap_day_is_a_day(simple_house: SimpleHouse) -> None:
    as_of = datetime(2024, 3, 1, tzinfo=UTC)
    row = only(simple_house.score([Sale("anna", datetime(2024, 1, 31, tzinfo=UTC))], as_of))
    # 29 days of February and one of January
    assert (row["days_since_last_purchase"], row["recency_score"]) == (30, 5)


def test_an_order_at_as_of_is_not_counted_and_one_a_microsecond_before_is(
    simple_house: SimpleHouse,
) -> None:
    scores = simple_house.score([Sale("at", AS_OF), Sale("before", AS_OF - MICROSECOND)])
    assert set(scores) == {uid("before")}


def test_the_look_back_begins_with_its_first_moment(simple_house: SimpleHouse) -> None:
    scores = simple_house.score(
        [
            Sale("first moment", ago(30)),
            Sale("before it", ago(30) - MICROSECOND),
            Sale("both", ago(30) - MICROSECOND),
            Sale("both", ago(1)),
        ],
        rules=Rules(lookback_days=30),
    )
    assert {who: row["total_purchases"] for who, row in scores.items()} == {
        uid("first moment"): 1,
        uid("both"): 1,
    }


def test_thresholds_come_from_settings(simple_house: SimpleHouse) -> None:
    row = only(
        simple_house.score(
            [Sale("anna", ago(8)) for _ in range(3)],
            rules=Rules(
                recency_days=(1, 7, 8, 9),
                frequency_purchases=(5, 4, 3, 2),
                vip_min_total=15,
                regular_min_total=7,
                medium_risk_after_days=7,
            ),
        )
    )
    assert (row["recency_score"], row["frequency_score"]) == (3, 3)
    assert (row["segment"], row["churn_risk"]) == ("Regular", "medium")


def test_a_venue_may_have_its_own_thresholds(simple_house: SimpleHouse) -> None:
    simple_house.fill(
        [Sale("anna", ago(40)), Sale("anna", ago(40), venue=OTHER_VENUE)],
        venues=[(VENUE, TENANT), (OTHER_VENUE, TENANT)],
    )
    overrides = {OTHER_VENUE: {"recency_days": [40, 60, 90, 180]}}
    assert simple_house.run(settings={"venues": overrides}).unfinished == []
    recency = {
        row["venue_id"]: row["recency_score"] for row in simple_house.view("customer_rfm_scores")
    }
    assert recency == {VENUE: 4, OTHER_VENUE: 5}


def test_a_mean_at_a_true_tie_is_rounded_away_from_zero(simple_house: SimpleHouse) -> None:
    # 1.01 in 8 purchases: 0.12625 -> 0.13 is no tie; 1.00 in 8: 0.125 -> 0.13, not 0.12
    row = only(simple_house.score([Sale("anna", ago(n + 1), 1 if n == 0 else 0) for n in range(8)]))
    assert row["average_order_value"] == Decimal("0.13")
    assert row["average_order_value"].as_tuple().exponent == -2


def test_free_orders_are_purchases(simple_house: SimpleHouse) -> None:
    row = only(simple_house.score([Sale("anna", ago(1), 0), Sale("anna", ago(2), 0)]))
    assert (row["total_purchases"], row["total_spent"]) == (2, 0)
    value = only({0: simple_house.view("customer_lifetime_value")[0]})
    assert (value["clv"], value["predicted_clv_12_months"]) == (0, 0)


def test_a_free_order_that_was_refunded_is_not_a_purchase(simple_house: SimpleHouse) -> None:
    scores = simple_house.score(
        [Sale("anna", ago(1), 0, status="refunded"), Sale("ben", ago(1), 0)]
    )
    assert set(scores) == {uid("ben")}


def test_spend_beyond_the_range_of_an_integer_is_summed_exactly(simple_house: SimpleHouse) -> None:
    large = Decimal("9999999999.99")
    row = only(simple_house.score([Sale("anna", ago(n + 1), large) for n in range(30)]))
    assert row["total_spent"] == 30 * large
    assert row["average_order_value"] == large
    vip = {s["segment_name"]: s for s in simple_house.view("customer_segments")}
    assert sum(s["total_revenue"] for s in vip.values()) == 30 * large


def test_more_than_999_purchases_a_year_fit(simple_house: SimpleHouse) -> None:
    row = only(simple_house.score([Sale("box office", ago(1)) for _ in range(83)]))
    assert row["total_purchases"] == 83
    # 83 purchases within 30 days: 83 / 30 × 365.25 = 1010.525 -> 1010.53
    (value,) = simple_house.view("customer_venue_value")
    assert value["purchase_frequency"] == Decimal("1010.53")
    segments = simple_house.view("customer_segments")
    assert max(s["avg_purchase_frequency"] for s in segments) == Decimal("1010.53")


@pytest.mark.parametrize(
    ("days", "churn"),
    [(60, "0.1"), (61, "0.2"), (90, "0.2"), (91, "0.4"), (180, "0.4"), (181, "0.7")],
)
def test_churn_probability_rises_after_60_90_and_180_days(
    simple_house: SimpleHouse, days: int, churn: str
) -> None:
    simple_house.score([Sale("anna", ago(days), 100)])
    (value,) = simple_house.view("customer_lifetime_value")
    c = Decimal(churn)
    assert value["churn_probability"] == c
    a_year = 100 * Decimal("365.25") / days * (1 - c)
    assert abs(value["predicted_clv_12_months"] - a_year) <= Decimal("0.005")
    assert abs(value["predicted_clv_24_months"] - a_year * (2 - c)) <= Decimal("0.005")


def test_a_customers_lifespan_is_at_least_a_day(simple_house: SimpleHouse) -> None:
    simple_house.score([Sale("anna", AS_OF - timedelta(hours=23))])
    (value,) = simple_house.view("customer_venue_value")
    assert value["customer_lifespan_days"] == 1


def test_lifetime_value_sums_a_tenants_venues(simple_house: SimpleHouse) -> None:
    simple_house.fill(
        [Sale("anna", ago(100), 30), Sale("anna", ago(10), 12, venue=OTHER_VENUE)],
        venues=[(VENUE, TENANT), (OTHER_VENUE, TENANT)],
    )
    assert simple_house.run().unfinished == []
    (value,) = simple_house.view("customer_lifetime_value")
    assert (value["clv"], value["total_purchases"]) == (42, 2)
    assert (value["avg_order_value"], value["customer_lifespan_days"]) == (21, 100)
    assert value["churn_probability"] == Decimal("0.1")
    assert value["venue_id"] is None


def test_the_venues_own_currency_leaves_orders_in_others_out(
    new_database: Callable[[str | None], Database], redis_client: redis.Redis
) -> None:
    with House(new_database("csv"), redis_client) as house:
        tenant, venue, anna = uid("tenant"), uid("venue"), uid("anna")
        house.superuser.execute(
            "INSERT INTO csv.venues VALUES (%s, %s, 'Hall', 'UTC', 'EUR')", [venue, tenant]
        )
        house.superuser.execute("INSERT INTO csv.customers VALUES (%s, %s, 'anna')", [anna, tenant])
        for number, currency in enumerate(["USD", "USD", "USD", "EUR"]):
            house.superuser.execute(
                "INSERT INTO csv.orders VALUES (%s, %s, %s, %s, %s, 7, 'paid', %s, 1, 'set', 1)",
                [uid(f"order {number}"), tenant, venue, anna, ago(1), currency],
            )
        scoring = house.run()
        (row,) = house.view("customer_rfm_scores")
        assert row["total_spent"] == 7
        assert scoring.attempts[venue].left_out == {"other currency": 3}
        # a setting overrides the source
        assert house.run(rules=Rules(currency="USD")).unfinished == []
        (row,) = house.view("customer_rfm_scores")
        assert row["total_spent"] == 21


def test_the_oracles_rules_are_the_default_settings() -> None:
    assert make_settings(Rules()) == make_settings()


def test_whole_days_of_the_oracle_are_floors() -> None:
    assert whole_days(AS_OF - 31 * DAY + MICROSECOND, AS_OF) == 30


# the two rule sets ----------------------------------------------------------------------------

SCORES = (1, 2, 3, 4, 5)


@pytest.mark.parametrize("rule_set", ["audited", "standard"])
def test_each_triple_of_scores_has_one_segment(rule_set: str) -> None:
    rules = Rules(rule_set=rule_set)
    settings = make_settings(rules)
    assert sorted(segments(settings)) == sorted(rules.segments)
    for r, f, m in product(SCORES, SCORES, SCORES):
        for days in (rules.at_risk_max_days, rules.at_risk_max_days + 1):
            found = segment(settings, r, f, m, days > rules.at_risk_max_days)
            assert found == segment_of(r, f, m, days, rules), (r, f, m, days)


#: Two numbers of days since the last purchase for each recency score.
DAYS = {5: (10, 25), 4: (35, 55), 3: (65, 85), 2: (95, 150), 1: (200, 400)}
PURCHASES = {5: 10, 4: 7, 3: 4, 2: 2, 1: 1}


def test_the_sql_assigns_each_triple_its_segment(platform_house: PlatformHouse) -> None:
    at = Platform(platform_house)
    for (r, alike), f, m in product(product(SCORES, (0, 1)), SCORES, SCORES):
        buyer = uid(f"customer {r} {alike} {f} {m}")
        at.register(buyer)
        for number in range(PURCHASES[f]):
            # each fifth of all customers spends the same, and so has one monetary score
            at.buy(buyer, FIRST - (DAYS[r][alike] + number) * DAY, m * 1400 // PURCHASES[f])
    at.rules = Rules(rule_set="standard")
    at.night(FIRST)
    # use the first number of days of each recency score as its bound; the second is beyond it
    for at_risk_max_days, _ in DAYS.values():
        at.rules = Rules(at_risk_max_days=at_risk_max_days)
        at.night(FIRST)
    found = Counter(
        (row["recency_score"], row["frequency_score"], row["monetary_score"])
        for row in at.house.view("customer_rfm_scores")
    )
    assert found == dict.fromkeys(product(SCORES, SCORES, SCORES), 2)
