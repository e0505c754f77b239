"""The history of movements between segments, by the current rules, without erased customers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from operator import itemgetter
from typing import Any
from uuid import UUID

import pytest
import redis
from psycopg import sql
from tests.databases import Database
from tests.jobs.rfm_scoring.night_strategies import OpensOrCloses
from tests.jobs.rfm_scoring.platform_nights import (
    ANNA,
    BEN,
    BUYERS,
    CLEO,
    CLUB,
    CLUBS,
    DAN,
    DAY,
    EVENTS,
    FIRST,
    HALL,
    HALLS,
    HOUR,
    MINUTE,
    VENUES,
    Platform,
    bens_order,
)
from tests.jobs.rfm_scoring.rfm_oracle import Rules
from tests.jobs.rfm_scoring.scoring import AS_OF, TENANT, PlatformHouse, Sale, SimpleHouse

pytestmark = pytest.mark.long


def history(at: Platform, tenant_id: UUID = TENANT) -> list[tuple[Any, ...]]:
    """Return venue, customer, segments and kind of each row of the history."""
    columns = ("venue_id", "customer_id", "previous_segment", "segment", "kind")
    rows = at.house.view("customer_segment_history", tenant_id)
    return [tuple(row[column] for column in columns) for row in rows]


def test_a_change_of_rules_is_recorded_but_is_not_a_movement(at: Platform) -> None:
    at.rules = Rules(rule_set="standard")
    at.night(FIRST + DAY)
    noted = history(at)
    assert {kind for *_, kind in noted} == {"rules"}
    # all four customers of two venues: every segment's name has changed
    assert len(noted) == 8
    assert at.house.view("segment_movements") == []
    # the next night has movements again
    at.buy(DAN, FIRST + DAY + HOUR, 9000)
    at.night(FIRST + 2 * DAY)
    assert {row["moved_at"] for row in at.house.view("segment_movements")} == {FIRST + 2 * DAY}


def test_the_first_customers_of_a_venue_without_sales_are_movements(
    simple_house: SimpleHouse,
) -> None:
    simple_house.fill([])
    simple_house.run(AS_OF)
    simple_house.fill([Sale("anna", AS_OF + HOUR)], venues=())
    simple_house.run(AS_OF + DAY)
    (row,) = simple_house.view("customer_segment_history")
    assert (row["kind"], row["previous_segment"]) == ("movement", None)


def test_rules_that_move_no_customer_leave_no_row(at: Platform) -> None:
    at.rules = Rules(at_risk_max_days=200)
    at.night(FIRST + DAY)
    assert history(at) == []


def test_rules_that_are_reverted_the_same_night_leave_no_trace(at: Platform) -> None:
    for rules in (Rules(rule_set="standard"), Rules()):
        at.rules = rules
        at.night(FIRST + DAY)
    assert history(at) == []
    at.buy(DAN, FIRST + DAY + HOUR, 9000)
    at.night(FIRST + 2 * DAY)
    assert {kind for *_, kind in history(at)} == {"movement"}


def test_a_change_of_the_venues_currency_is_not_a_movement(
    new_database: Callable[[str | None], Database], redis_client: redis.Redis
) -> None:
    with PlatformHouse(new_database("platform"), redis_client) as house:
        at = Platform(house)
        for currency in ("EUR", "USD", "USD", "USD"):
            at.buy(ANNA, FIRST - DAY, currency=currency)
        at.store()
        ((view,),) = house.superuser.execute("SELECT pg_get_viewdef('source.venues')").fetchall()
        for as_of, currency in ((FIRST, "EUR"), (FIRST + DAY, "USD")):
            # an adapter whose platform has its venues' currencies
            changed = view.replace("NULL::text AS currency", f"'{currency}'::text AS currency")
            house.superuser.execute(
                f"CREATE OR REPLACE VIEW source.venues WITH (security_invoker) AS {changed}"
            )
            house.run(as_of)
        (row,) = house.view("customer_segment_history")
        # 5 + 1 + 1 points for one purchase in euros, 5 + 2 + 1 for three in dollars
        assert (row["previous_segment"], row["segment"]) == ("At-Risk", "Regular")
        assert row["kind"] == "rules"
        assert house.view("segment_movements") == []


def test_the_first_build_of_a_venue_writes_no_history(at: Platform) -> None:
    assert at.house.view("customer_rfm_scores")
    assert history(at) == []
    at.buy(ANNA, FIRST - DAY, event=EVENTS[4])
    OpensOrCloses(VENUES.index(CLUB)).do(at)
    at.night(FIRST + DAY)
    OpensOrCloses(VENUES.index(CLUB)).do(at)
    at.night(FIRST + 2 * DAY)
    assert history(at) == []


def test_a_forced_older_night_deletes_only_that_venues_later_rows(at: Platform) -> None:
    for night in (1, 2, 3):
        for event in (HALLS, CLUBS):
            at.buy(DAN, FIRST + night * DAY - HOUR, 2000, event=event)
            at.buy(CLEO, FIRST + night * DAY - HOUR, 2000, event=event)
        at.night(FIRST + night * DAY)
    before = at.house.view("customer_segment_history")
    nights = {row["changed_at"] for row in before if row["venue_id"] == HALL}
    assert max(nights) > FIRST + 2 * DAY - HOUR
    at.night(FIRST + DAY + HOUR, venues=[HALL], force=True)
    after = at.house.view("customer_segment_history")
    assert [row for row in after if row["venue_id"] == CLUB] == [
        row for row in before if row["venue_id"] == CLUB
    ]
    assert [row for row in after if row["venue_id"] == HALL] == [
        row for row in before if row["venue_id"] == HALL and row["changed_at"] <= at.last
    ]


def test_a_forced_older_night_replaces_later_rules_with_its_own(at: Platform) -> None:
    at.night(FIRST + DAY)
    at.rules = Rules(rule_set="standard")
    at.night(FIRST + 3 * DAY)
    at.night(FIRST + 2 * DAY, force=True)
    assert {row["changed_at"] for row in at.house.view("customer_segment_history")} == {
        FIRST + 2 * DAY
    }
    in_force = at.house.superuser.execute(
        "SELECT since, rules ->> 'rule_set' FROM venue_rfm_rules WHERE venue_id = %s ORDER BY 1",
        [HALL],
    ).fetchall()
    assert in_force == [(FIRST, "audited"), (FIRST + 2 * DAY, "standard")]


@pytest.mark.parametrize(
    ("asked", "outcome", "reason"),
    [
        ({}, "skipped", "already done"),
        ({"force": True}, "succeeded", None),
    ],
    ids=["by the schedule", "forced"],
)
def test_two_runs_of_the_same_night_write_history_once(
    at: Platform, asked: dict[str, Any], outcome: str, reason: str | None
) -> None:
    at.buy(DAN, FIRST + HOUR, 9000)
    at.night(FIRST + DAY)
    before = history(at)
    assert before
    attempts = at.night(FIRST + DAY, **asked)
    assert {(a.outcome, a.reason) for a in attempts.values()} == {(outcome, reason)}
    assert history(at) == before


def test_a_customer_who_leaves_all_segments_moves_to_none(at: Platform) -> None:
    at.refund(bens_order(at), FIRST + HOUR, 3000)
    at.put("users", CLEO, deleted_at=FIRST + HOUR)
    at.night(FIRST + DAY)
    left = {(venue, who) for venue, who, _, segment, _ in history(at) if segment is None}
    assert left == {(HALL, BEN), (HALL, CLEO), (CLUB, CLEO)}


def test_a_customer_who_left_has_spent_nothing_even_if_the_night_is_built_again(
    at: Platform,
) -> None:
    for order_id, row in list(at.tables["orders"].items()):
        if row["user_id"] == BEN:
            at.lose("orders", order_id)
    for force in (False, True):
        at.night(FIRST + DAY, force=force)
        spent = [
            row["total_spent"]
            for row in at.house.view("customer_segment_history")
            if row["customer_id"] == BEN
        ]
        assert spent == [0, 0]


def comes_back_in_an_older_night(at: Platform) -> datetime:
    at.night(FIRST + DAY)
    at.refund(bens_order(at), FIRST + DAY + HOUR, 3000)
    at.night(FIRST + 2 * DAY)
    return FIRST + DAY + MINUTE


def comes_back_with_the_rules(at: Platform) -> datetime:
    at.rules = Rules(lookback_days=5)
    at.night(FIRST + DAY)
    at.rules = Rules()
    return FIRST + DAY


def comes_back_with_the_money(at: Platform) -> datetime:
    refund = at.refund(bens_order(at), FIRST + HOUR, 3000)
    at.night(FIRST + DAY)
    at.put("order_refunds", refund, refund_status="FAILED")
    return FIRST + DAY


@pytest.mark.parametrize(
    "comes_back",
    [comes_back_in_an_older_night, comes_back_with_the_rules, comes_back_with_the_money],
    ids=lambda comes_back: comes_back.__name__.replace("_", " "),
)
def test_a_customer_who_left_comes_back_when_a_night_is_done_again(
    at: Platform, comes_back: Callable[[Platform], datetime]
) -> None:
    as_of = comes_back(at)
    assert (HALL, BEN) not in scored_pairs(at)
    at.night(as_of, force=True)
    assert (HALL, BEN) in scored_pairs(at)
    assert (HALL, BEN) not in {(venue, who) for venue, who, *_ in history(at)}


def scored_pairs(at: Platform) -> set[tuple[UUID, UUID]]:
    return {(row["venue_id"], row["customer_id"]) for row in at.house.view("customer_rfm_scores")}


def test_nights_that_are_forced_again_in_any_order_leave_history_chained(at: Platform) -> None:
    for number in range(1, 6):
        for event in (HALLS, CLUBS):
            at.buy(BUYERS[number % 3 + 1], FIRST + number * DAY - HOUR, 9000 * number, event=event)
        at.night(FIRST + number * DAY)
    changes = Counter((venue, who) for venue, who, *_ in history(at))
    assert max(changes.values()) > 1
    for number, rule_set in ((4, "standard"), (2, "audited"), (3, "standard"), (1, "audited")):
        at.rules = Rules(rule_set=rule_set)
        at.night(FIRST + number * DAY, force=True)
        assert_chained(at)
    for number in (2, 3):
        at.night(FIRST + number * DAY)
        assert_chained(at)


def assert_chained(at: Platform) -> None:
    """Check that each change continues the one before, and the last one the current segment."""
    changes: dict[tuple[UUID, UUID], list[dict[str, Any]]] = {}
    for row in sorted(at.house.view("customer_segment_history"), key=itemgetter("changed_at")):
        changes.setdefault((row["venue_id"], row["customer_id"]), []).append(row)
    shown = {
        (row["venue_id"], row["customer_id"]): row["segment"]
        for row in at.house.view("customer_rfm_scores")
    }
    for pair, rows in changes.items():
        ended = [row["segment"] for row in rows]
        assert [row["previous_segment"] for row in rows[1:]] == ended[:-1]
        assert ended[-1] == shown.get(pair)


def test_a_change_of_currency_leaves_no_sum_of_the_former_one(at: Platform) -> None:
    at.buy(ANNA, FIRST - DAY, 700, currency="EUR")
    at.night(FIRST + HOUR)
    at.rules = Rules(currency="EUR")
    at.night(FIRST + DAY)
    rows = at.house.view("customer_segment_history")
    spent = {row["customer_id"]: row["total_spent"] for row in rows if row["venue_id"] == HALL}
    # 7 euros instead of 40 dollars; the others have none
    assert spent == {ANNA: 7, BEN: 0, CLEO: 0, DAN: 0}


def test_no_trace_of_an_erased_customer_remains(at: Platform) -> None:
    at.buy(DAN, FIRST + HOUR, 9000)
    at.put("users", CLEO, deleted_at=FIRST + HOUR)
    at.night(FIRST + DAY)
    assert {DAN, CLEO} <= {who for _, who, *_ in history(at)}
    assert {"customer_rfm_state", "customer_segment_change"} <= tables_that_name(at, DAN)
    for who in (DAN, CLEO):
        at.ask_to_erase(who)
    at.night(FIRST + 2 * DAY)
    for who in (DAN, CLEO):
        assert tables_that_name(at, who) == set()


def test_no_trace_of_an_erased_customer_remains_if_the_account_is_gone(at: Platform) -> None:
    at.buy(DAN, FIRST + HOUR, 9000)
    at.night(FIRST + DAY)
    assert "customer_segment_change" in tables_that_name(at, DAN)
    at.ask_to_erase(DAN)
    at.lose("users", DAN)
    at.store()
    chosen = at.chosen()
    assert at.house.work(at.house.plan(FIRST + 2 * DAY, chosen)).unfinished == []
    assert tables_that_name(at, DAN) == set()


def test_no_trace_remains_of_a_customer_who_left_before_being_erased(at: Platform) -> None:
    # without purchases, only history has CLEO, and no row of the state is touched
    for order_id, row in list(at.tables["orders"].items()):
        if row["user_id"] == CLEO:
            at.lose("orders", order_id)
    at.night(FIRST + DAY)
    assert tables_that_name(at, CLEO) == {"customer_segment_change"}
    at.ask_to_erase(CLEO)
    at.night(FIRST + 2 * DAY)
    assert tables_that_name(at, CLEO) == set()


def tables_that_name(at: Platform, customer_id: UUID) -> set[str]:
    """Find the job's tables that hold a customer's id anywhere."""
    superuser = at.house.superuser
    tables = superuser.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'jobs')"
    ).fetchall()
    return {
        name
        for schema, name in tables
        if name not in at.house.source_tables
        and superuser.execute(
            sql.SQL("SELECT FROM {} AS t WHERE t::text LIKE %s LIMIT 1").format(
                sql.Identifier(schema, name)
            ),
            [f"%{customer_id}%"],
        ).rowcount
    }
