"""A night takes every change in the source into account, and writes only what differs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.jobs.rfm_scoring.night_strategies import Merges, MovesEvent
from tests.jobs.rfm_scoring.platform_nights import (
    ANNA,
    BEN,
    CLUB,
    DAY,
    EVENTS,
    FIRST,
    HALL,
    HOUR,
    LONG_AGO,
    VENUES,
    Platform,
    bens_order,
)
from tests.jobs.rfm_scoring.rfm_oracle import Rules


def test_a_night_without_changes_writes_only_each_venues_as_of_and_summaries(at: Platform) -> None:
    before = at.house.row_versions()
    at.night(FIRST + DAY)
    after = at.house.row_versions()
    for table in ("customer_rfm_state", "customer_segment_change", "venue_rfm_rules"):
        assert after[table] == before[table], table
    assert before["customer_rfm_state"]
    rows = at.house.superuser.execute("SELECT as_of FROM venue_rfm_state").fetchall()
    assert rows == [(FIRST + DAY,)] * len(VENUES)
    assert len(after["customer_segments"]) == len(before["customer_segments"])
    rows = at.house.superuser.execute("SELECT last_calculated_at FROM customer_segments").fetchall()
    assert set(rows) == {(FIRST + DAY,)}


def ordered_ahead(at: Platform) -> None:
    at.buy(BEN, at.last + 3 * DAY)


def refunded_ahead(at: Platform) -> None:
    at.refund(bens_order(at), at.last + 3 * DAY, 1000)


def refund_that_goes_through_late(at: Platform) -> None:
    pending = at.refund(bens_order(at), at.last - 5 * DAY, 1000, status="PENDING")
    at.night(at.last + DAY)
    at.put("order_refunds", pending, refund_status="COMPLETED")


def refund_that_has_failed(at: Platform) -> None:
    refund = at.refund(bens_order(at), at.last + HOUR, 1000)
    at.night(at.last + DAY)
    at.put("order_refunds", refund, refund_status="FAILED")


def cancelled(at: Platform) -> None:
    at.put("orders", bens_order(at), status="CANCELLED")


def repriced(at: Platform) -> None:
    at.put("orders", bens_order(at), total_cents=1)


def refunded_in_whole_by_its_status(at: Platform) -> None:
    at.put("orders", bens_order(at), status="REFUNDED")


def account_deleted(at: Platform) -> None:
    at.put("users", BEN, deleted_at=LONG_AGO)


def account_gone(at: Platform) -> None:
    at.lose("users", BEN)


def account_opened_late(at: Platform) -> None:
    at.lose("users", BEN)
    at.night(at.last + DAY)
    at.register(BEN)


def erasure_asked_for(at: Platform) -> None:
    at.ask_to_erase(BEN)


@pytest.mark.parametrize(
    "happens",
    [
        ordered_ahead,
        refunded_ahead,
        refund_that_goes_through_late,
        refund_that_has_failed,
        cancelled,
        repriced,
        refunded_in_whole_by_its_status,
        account_deleted,
        account_gone,
        account_opened_late,
        erasure_asked_for,
    ],
    ids=lambda happens: happens.__name__.replace("_", " "),
)
def test_every_change_counts(at: Platform, happens: Callable[[Platform], None]) -> None:
    def bens() -> list[object]:
        rows = at.house.view("customer_rfm_scores")
        return [
            (row["total_purchases"], row["total_spent"])
            for row in rows
            if (row["customer_id"], row["venue_id"]) == (BEN, HALL)
        ]

    happens(at)
    before = bens()
    # each night is compared with the oracles; after four nights, changes ahead of as_of count
    for _ in range(4):
        at.night(at.last + DAY)
    assert bens() != before


def test_a_purchase_before_the_look_back_no_longer_counts(at: Platform) -> None:
    at.rules = Rules(lookback_days=12)
    for _ in range(4):
        at.night(at.last + DAY)
    assert BEN not in {row["customer_id"] for row in at.house.view("customer_rfm_scores")}


def test_an_event_that_moves_takes_its_purchases_along(at: Platform) -> None:
    at.buy(ANNA, FIRST - DAY, 5000, event=EVENTS[1])
    at.night(FIRST + DAY)
    MovesEvent(event=1, venue=VENUES.index(CLUB)).do(at)
    at.night(FIRST + 2 * DAY)
    spent = {
        row["venue_id"]: row["total_spent"]
        for row in at.house.view("customer_rfm_scores")
        if row["customer_id"] == ANNA
    }
    assert spent == {HALL: 40, CLUB: 90}


def test_a_customer_merged_into_another_is_gone_and_the_other_has_all_purchases(
    at: Platform,
) -> None:
    Merges(buyer=1, into=0, written="unchanged").do(at)
    at.night(FIRST + DAY)
    rows = {row["customer_id"]: row for row in at.house.view("customer_lifetime_value")}
    assert BEN not in rows
    assert rows[ANNA]["clv"] == 2 * (40 + 30)
