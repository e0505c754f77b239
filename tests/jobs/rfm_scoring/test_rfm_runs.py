"""What a run leaves alone, what it removes, and what it reports about a bad source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from psycopg import sql
from psycopg.types.json import Jsonb
from tests.databases import Database
from tests.jobs.rfm_scoring.rfm_oracle import Rules
from tests.jobs.rfm_scoring.scoring import (
    AS_OF,
    OTHER_TENANT,
    OTHER_VENUE,
    TENANT,
    VENUE,
    VIEWS,
    House,
    PlatformHouse,
    Sale,
    SimpleHouse,
    make_settings,
    uid,
)

from venue_analytics.database.statements import statement
from venue_analytics.harness import PermanentError, TransientError
from venue_analytics.jobs.rfm_scoring.rules import bound_names
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

DAY = timedelta(days=1)
TWO_VENUES = ((VENUE, TENANT), (OTHER_VENUE, TENANT))
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def ago(days: float) -> datetime:
    return AS_OF - timedelta(days=days)


def several() -> list[Sale]:
    """Return four customers at two venues, one of them nearly 30 days after the last purchase."""
    return [
        Sale("anna", ago(29.5), 10),
        Sale("ben", ago(100), 20),
        Sale("ben", ago(101), 20),
        Sale("cleo", ago(200), 30),
        Sale("anna", ago(3), 10, venue=OTHER_VENUE),
        Sale("dan", ago(5), 15, venue=OTHER_VENUE),
    ]


def venues_shown(house: House, tenant_id: UUID = TENANT) -> dict[str, set[UUID]]:
    """Return the venues that have rows, by view; lifetime values have no venue."""
    return {
        name: {row["venue_id"] for row in house.view(name, tenant_id)}
        for name in VIEWS
        if name != "customer_lifetime_value"
    }


def shown(*venues: UUID) -> dict[str, set[UUID]]:
    return {name: set(venues) for name in VIEWS if name != "customer_lifetime_value"}


def test_a_second_run_of_the_same_night_finds_it_done(simple_house: SimpleHouse) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    before = simple_house.row_versions()
    scoring = simple_house.run()
    assert scoring.unfinished == []
    assert {(a.outcome, a.reason) for a in scoring.attempts.values()} == {
        ("skipped", "already done")
    }
    assert simple_house.row_versions() == before


def test_a_second_scoring_of_the_same_as_of_changes_no_row(simple_house: SimpleHouse) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    before = simple_house.row_versions()
    assert {name: len(rows) for name, rows in before.items()} == {
        "customer_rfm_state": 5,
        "venue_rfm_state": 2,
        "customer_segments": 8,
        "customer_segment_change": 0,
        "venue_rfm_rules": 2,
    }
    scoring = simple_house.run(force=True)
    assert simple_house.row_versions() == before
    assert {a.outcome for a in scoring.attempts.values()} == {"succeeded"}
    assert [a.rows_written for a in scoring.attempts.values()] == [0, 0]
    assert sum(a.rows_unchanged or 0 for a in scoring.attempts.values()) == 5


def test_a_later_as_of_rewrites_only_the_customers_that_changed(
    simple_house: SimpleHouse,
) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    before = {row[2:4]: row[0] for row in simple_house.row_versions()["customer_rfm_state"]}
    # two days later anna is past day 30 at the first venue; the others keep their scores
    scoring = simple_house.run(AS_OF + 2 * DAY)
    after = {row[2:4]: row[0] for row in simple_house.row_versions()["customer_rfm_state"]}
    assert {key for key in after if after[key] != before[key]} == {(VENUE, uid("anna"))}
    assert scoring.attempts[VENUE].rows_written == 1
    assert scoring.attempts[OTHER_VENUE].rows_written == 0
    days = {
        (row["venue_id"], row["customer_id"]): row["days_since_last_purchase"]
        for row in simple_house.view("customer_rfm_scores")
    }
    assert days[OTHER_VENUE, uid("dan")] == 7
    assert days[VENUE, uid("anna")] == 31


def test_created_at_is_the_as_of_of_the_run_that_first_wrote_the_row(
    simple_house: SimpleHouse,
) -> None:
    simple_house.fill([Sale("anna", ago(30)), Sale("ben", AS_OF)])
    simple_house.run()
    simple_house.run(AS_OF + 2 * DAY)
    created = {
        row["customer_id"]: row["created_at"] for row in simple_house.view("customer_rfm_scores")
    }
    # anna's recency fell, so her row was written again
    assert created == {uid("anna"): AS_OF, uid("ben"): AS_OF + 2 * DAY}


def test_an_older_as_of_is_skipped_with_a_reason(simple_house: SimpleHouse) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    before = simple_house.row_versions()
    scoring = simple_house.run(AS_OF - DAY)
    assert scoring.unfinished == []
    assert {a.outcome for a in scoring.attempts.values()} == {"skipped"}
    reason = scoring.attempts[VENUE].reason or ""
    assert "newer results stand, as of 2024-07-01 00:00:00 UTC" in reason
    assert "force" in reason
    assert simple_house.row_versions() == before


def test_force_replaces_a_later_as_of_with_the_results_of_a_fresh_build(
    simple_house: SimpleHouse,
) -> None:
    older = AS_OF - 4 * DAY
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run(older)
    fresh = simple_house.views()
    simple_house.clear()
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run(AS_OF)
    assert simple_house.views() != fresh
    scoring = simple_house.run(older, force=True)
    assert {a.outcome for a in scoring.attempts.values()} == {"succeeded"}
    forced = simple_house.views()
    # created_at is that of the first build, whatever came after
    for rows in (fresh["customer_rfm_scores"], forced["customer_rfm_scores"]):
        for row in rows:
            del row["created_at"]
    assert forced == fresh


def test_other_thresholds_at_the_same_as_of_rescore(simple_house: SimpleHouse) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    simple_house.run(rules=Rules(recency_days=(0, 1, 2, 3)))
    recency = {row["recency_score"] for row in simple_house.view("customer_rfm_scores")}
    assert recency == {1, 2}


def test_a_venue_that_was_deleted_from_the_source_loses_its_rows(simple_house: SimpleHouse) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    assert venues_shown(simple_house) == shown(VENUE, OTHER_VENUE)
    simple_house.superuser.execute("DELETE FROM venues WHERE id = %s", [OTHER_VENUE])
    scoring = simple_house.run(AS_OF + DAY)
    assert scoring.unfinished == []
    assert venues_shown(simple_house) == shown(VENUE)
    assert scoring.attempts[OTHER_VENUE].rows_removed == 2
    assert OTHER_VENUE not in simple_house.run(AS_OF + DAY).attempts


def test_nothing_is_removed_if_the_source_lists_no_venue(simple_house: SimpleHouse) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    before = simple_house.row_versions()
    simple_house.superuser.execute("DELETE FROM venues")
    with pytest.raises(PermanentError, match=r"source\.venues lists no venue"):
        simple_house.run(AS_OF + DAY)
    assert simple_house.row_versions() == before


def test_a_venue_that_moves_to_another_tenant_takes_its_rows_along(
    simple_house: SimpleHouse,
) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    simple_house.superuser.execute(
        "UPDATE venues SET tenant_id = %s WHERE id = %s", [OTHER_TENANT, OTHER_VENUE]
    )
    simple_house.superuser.execute(
        "UPDATE orders SET tenant_id = %s WHERE venue_id = %s", [OTHER_TENANT, OTHER_VENUE]
    )
    scoring = simple_house.run(AS_OF + DAY)
    assert scoring.unfinished == []
    assert venues_shown(simple_house) == shown(VENUE)
    assert venues_shown(simple_house, OTHER_TENANT) == shown(OTHER_VENUE)
    assert {row["tenant_id"] for row in simple_house.view("customer_rfm_scores", OTHER_TENANT)} == {
        OTHER_TENANT
    }


def test_an_excluded_venue_keeps_its_rows_as_they_are(simple_house: SimpleHouse) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    before = simple_house.view("customer_rfm_scores")
    scoring = simple_house.run(AS_OF + DAY, settings={"exclude_venues": [OTHER_VENUE]})
    assert set(scoring.attempts) == {VENUE}
    after = simple_house.view("customer_rfm_scores")
    assert [r for r in after if r["venue_id"] == OTHER_VENUE] == [
        r for r in before if r["venue_id"] == OTHER_VENUE
    ]
    assert {r["calculated_at"] for r in after if r["venue_id"] == VENUE} == {AS_OF + DAY}


def test_a_customer_whose_orders_are_gone_loses_the_row(simple_house: SimpleHouse) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    simple_house.superuser.execute(
        "UPDATE orders SET status = 'refunded' WHERE user_id = %s", [uid("ben")]
    )
    scoring = simple_house.run(force=True)
    assert scoring.attempts[VENUE].rows_removed == 1
    assert uid("ben") not in {r["customer_id"] for r in simple_house.view("customer_rfm_scores")}


def platform_venue(house: PlatformHouse, buyers: dict[str, int]) -> None:
    """Fill one venue of the platform with one order per buyer, of this many cents."""
    made = {"created_at": LONG_AGO, "updated_at": LONG_AGO}
    venue = {"id": VENUE, "tenant_id": TENANT, "name": "Hall", "max_capacity": 9}
    house.insert("venues", [venue | {"status": "ACTIVE"} | made])
    event = {"id": uid("event"), "tenant_id": TENANT, "venue_id": VENUE, "name": "Show"}
    house.insert("events", [event | {"category": "music", "status": "PUBLISHED"} | made])
    house.insert(
        "users",
        [
            {"id": uid(name), "tenant_id": TENANT, "email": "x@example.org", "status": "ACTIVE"}
            | made
            for name in buyers
        ],
    )
    house.insert(
        "orders",
        [
            {
                "id": uuid4(),
                "tenant_id": TENANT,
                "user_id": uid(name),
                "event_id": uid("event"),
                "status": "COMPLETED",
                "total_cents": cents,
                "currency": "USD",
                "ticket_quantity": 1,
                "created_at": ago(1),
                "updated_at": ago(1),
            }
            for name, cents in buyers.items()
        ],
    )


def add_order(house: PlatformHouse, buyer: str, **changes: Any) -> UUID:
    """Add an order of ten dollars for the venue's event, paid two days ago; return its id."""
    order_id = uuid4()
    order = {
        "id": order_id,
        "tenant_id": TENANT,
        "event_id": uid("event"),
        "status": "PAID",
        "user_id": uid(buyer),
        "total_cents": 1000,
        "currency": "USD",
        "ticket_quantity": 1,
        "created_at": ago(2),
        "updated_at": ago(2),
    }
    house.insert("orders", [order | changes])
    return order_id


def add_refund(house: PlatformHouse, order: UUID, cents: int, at: datetime) -> None:
    refund = {"id": uuid4(), "tenant_id": TENANT, "order_id": order, "refund_status": "COMPLETED"}
    moments = {"created_at": at, "updated_at": at}
    house.insert("order_refunds", [refund | {"refund_amount_cents": cents} | moments])


def monetary(house: House) -> dict[UUID, int]:
    return {row["customer_id"]: row["monetary_score"] for row in house.view("customer_rfm_scores")}


def test_a_refund_counts_from_the_moment_at_which_it_was_made(
    platform_house: PlatformHouse,
) -> None:
    platform_venue(platform_house, {"anna": 700})
    add_refund(platform_house, add_order(platform_house, "anna"), 400, AS_OF)
    platform_house.run()
    (row,) = platform_house.view("customer_rfm_scores")
    assert (row["total_purchases"], row["total_spent"]) == (2, 17)
    platform_house.run(AS_OF + timedelta(microseconds=1))
    (row,) = platform_house.view("customer_rfm_scores")
    assert (row["total_purchases"], row["total_spent"]) == (2, 13)


def test_partial_refunds_that_add_up_to_the_amount_undo_the_purchase(
    platform_house: PlatformHouse,
) -> None:
    platform_venue(platform_house, {"anna": 700})
    order = add_order(platform_house, "anna")
    add_refund(platform_house, order, 400, ago(1))
    add_refund(platform_house, order, 600, ago(1))
    scoring = platform_house.run()
    assert scoring.attempts[VENUE].left_out == {"refunded in whole": 1}
    (row,) = platform_house.view("customer_rfm_scores")
    assert (row["total_purchases"], row["total_spent"]) == (1, 7)


def test_absurdly_large_refunds_undo_the_purchase_and_fail_nothing(
    platform_house: PlatformHouse,
) -> None:
    platform_venue(platform_house, {"anna": 700})
    order = add_order(platform_house, "anna")
    for cents in (9 * 10**18, 9 * 10**18, -9 * 10**18):
        add_refund(platform_house, order, cents, ago(1))
    assert platform_house.run().attempts[VENUE].left_out == {"refunded in whole": 1}


def test_a_venues_currency_is_that_of_its_first_build_whatever_sells_later(
    platform_house: PlatformHouse,
) -> None:
    platform_venue(platform_house, {"anna": 700})
    platform_house.run()
    for _ in range(3):
        add_order(platform_house, "anna", currency="EUR", created_at=AS_OF)
    scoring = platform_house.run(AS_OF + DAY)
    assert scoring.attempts[VENUE].left_out == {"other currency": 3}
    (row,) = platform_house.view("customer_rfm_scores")
    assert row["total_spent"] == 7


def test_lifetime_value_leaves_out_venues_in_another_currency_and_counts_them(
    platform_house: PlatformHouse,
) -> None:
    # two venues sell in dollars, one in euros
    platform_venue(platform_house, {"anna": 700})
    platform_house.superuser.execute(
        "INSERT INTO venues SELECT v.id, tenant_id, name, timezone, max_capacity, status, "
        "created_at, updated_at, deleted_at FROM venues, unnest(%s::uuid[]) AS v (id)",
        [[uid("v2"), uid("v3")]],
    )
    platform_house.superuser.execute(
        "INSERT INTO events SELECT v.id, tenant_id, v.id, name, category, status, created_at, "
        "updated_at, deleted_at FROM events, unnest(%s::uuid[]) AS v (id)",
        [[uid("v2"), uid("v3")]],
    )
    add_order(platform_house, "anna", event_id=uid("v2"))
    add_order(platform_house, "anna", event_id=uid("v3"), currency="EUR", created_at=ago(50))
    assert platform_house.run().unfinished == []
    (value,) = platform_house.view("customer_lifetime_value")
    assert (value["currency"], value["clv"], value["total_purchases"]) == ("USD", 17, 2)
    assert (value["venues_left_out"], value["customer_lifespan_days"]) == (1, 2)
    assert len(platform_house.view("customer_venue_value")) == 3


def test_a_customer_without_purchases_in_the_tenants_currency_has_no_lifetime_value(
    platform_house: PlatformHouse,
) -> None:
    # one venue each; in a tie, the first currency by name is the tenant's
    platform_venue(platform_house, {"anna": 700})
    platform_house.superuser.execute(
        "INSERT INTO venues SELECT %s, tenant_id, name, timezone, max_capacity, status, "
        "created_at, updated_at, deleted_at FROM venues",
        [uid("v2")],
    )
    platform_house.superuser.execute(
        "INSERT INTO events SELECT %(v)s, tenant_id, %(v)s, name, category, status, created_at, "
        "updated_at, deleted_at FROM events",
        {"v": uid("v2")},
    )
    add_order(platform_house, "ben", event_id=uid("v2"), currency="EUR")
    platform_house.superuser.execute(
        "INSERT INTO users SELECT %s, tenant_id, email, status, created_at, updated_at FROM users",
        [uid("ben")],
    )
    assert platform_house.run().unfinished == []
    (value,) = platform_house.view("customer_lifetime_value")
    assert (value["customer_id"], value["currency"]) == (uid("ben"), "EUR")


def test_a_closed_venue_loses_its_rows(platform_house: PlatformHouse) -> None:
    platform_venue(platform_house, {"anna": 100})
    platform_house.run()
    assert venues_shown(platform_house) == shown(VENUE)
    platform_house.superuser.execute("UPDATE venues SET status = 'CLOSED'")
    scoring = platform_house.run(AS_OF + DAY)
    assert scoring.attempts[VENUE].reason == "venue gone: its rows removed"
    assert all(not rows for rows in platform_house.row_versions().values())


def test_a_deleted_customer_vanishes_and_still_counts_in_the_percentiles(
    platform_house: PlatformHouse,
) -> None:
    # of five customers, 0, 1, …, 4 spent less than each
    platform_venue(platform_house, {"a": 100, "b": 200, "c": 300, "d": 400, "e": 500})
    platform_house.run()
    before = monetary(platform_house)
    platform_house.superuser.execute(
        "UPDATE users SET deleted_at = now() WHERE id = %s", [uid("a")]
    )
    platform_house.run(force=True)
    del before[uid("a")]
    assert (
        monetary(platform_house) == before == {uid("b"): 2, uid("c"): 3, uid("d"): 4, uid("e"): 5}
    )
    counts = [row["customer_count"] for row in platform_house.view("customer_segments")]
    assert sum(counts) == 4


def test_an_erased_customer_is_in_no_percentile_and_no_table(
    platform_house: PlatformHouse,
) -> None:
    platform_venue(platform_house, {"a": 100, "b": 200, "c": 300, "d": 400, "e": 500})
    platform_house.run()
    platform_house.insert(
        "gdpr_deletion_requests",
        [
            {
                "id": uuid4(),
                "tenant_id": TENANT,
                "user_id": uid("a"),
                "status": "PENDING",
                "created_at": LONG_AGO,
                "updated_at": LONG_AGO,
            }
        ],
    )
    platform_house.run(force=True)
    # of four customers, 0, 25, 50 and 75 % spent less
    assert monetary(platform_house) == {uid("b"): 1, uid("c"): 2, uid("d"): 3, uid("e"): 4}
    held = platform_house.row_versions()["customer_rfm_state"]
    assert not any(uid("a") in row for row in held)


def test_a_run_without_venues_succeeds(simple_house: SimpleHouse) -> None:
    scoring = simple_house.run()
    assert (scoring.unfinished, scoring.attempts) == ([], {})


def test_a_venue_without_tenant_is_reported_and_left_out(simple_house: SimpleHouse) -> None:
    simple_house.fill(several(), venues=[(VENUE, TENANT), (OTHER_VENUE, None)])
    scoring = simple_house.run()
    assert set(scoring.attempts) == {VENUE}
    (fault,) = scoring.run.source_faults
    assert str(OTHER_VENUE) in fault
    assert "has no tenant" in fault


def test_orders_at_unknown_venues_are_left_out(simple_house: SimpleHouse) -> None:
    simple_house.fill(
        [Sale("anna", ago(1)), *(Sale("anna", ago(1), venue=v) for v in (uid("nowhere"), None))]
    )
    simple_house.run()
    (row,) = simple_house.view("customer_rfm_scores")
    assert row["total_purchases"] == 1


def test_bad_orders_are_counted_by_kind_and_never_scored(platform_house: PlatformHouse) -> None:
    platform_venue(platform_house, {"good": 500, "others": 1})
    future = datetime(2999, 1, 1, tzinfo=UTC)
    bad: list[tuple[str, dict[str, Any]]] = [
        ("amount missing", {"total_cents": None}),
        ("amount negative", {"total_cents": -1}),
        ("amount too large", {"total_cents": 10**12}),
        ("currency missing", {"currency": None}),
        ("other currency", {"currency": "EUR"}),
        ("time in the future", {"created_at": future}),
        ("guest", {"user_id": None}),
        ("refunded in whole", {"status": "REFUNDED"}),
    ]
    for _, change in bad:
        add_order(platform_house, "good", **change)
    scoring = platform_house.run()
    assert scoring.unfinished == []
    assert scoring.attempts[VENUE].left_out == {kind: 1 for kind, _ in bad}
    scores = {row["customer_id"]: row for row in platform_house.view("customer_rfm_scores")}
    assert scores[uid("good")]["total_purchases"] == 1
    assert scores[uid("good")]["total_spent"] == 5


def test_an_order_without_a_time_is_counted_and_not_scored(simple_house: SimpleHouse) -> None:
    simple_house.fill([Sale("anna", ago(1)), Sale("anna", None)])
    scoring = simple_house.run()
    assert scoring.attempts[VENUE].left_out == {"time missing": 1}
    (row,) = simple_house.view("customer_rfm_scores")
    assert row["total_purchases"] == 1


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "9999999999.995"])
def test_an_amount_that_is_not_a_sum_of_money_is_not_fatal(
    simple_house: SimpleHouse, amount: str
) -> None:
    simple_house.fill([Sale("anna", ago(1)), Sale("ben", ago(1), amount)])
    scoring = simple_house.run()
    assert scoring.unfinished == []
    assert {row["customer_id"] for row in simple_house.view("customer_rfm_scores")} == {uid("anna")}


def test_an_order_at_minus_infinity_is_not_fatal(simple_house: SimpleHouse) -> None:
    simple_house.fill([Sale("anna", ago(1)), Sale("ben", ago(1))])
    simple_house.superuser.execute(
        "UPDATE orders SET created_at = '-infinity' WHERE user_id = %s", [uid("ben")]
    )
    scoring = simple_house.run()
    assert scoring.unfinished == []
    assert {row["customer_id"] for row in simple_house.view("customer_rfm_scores")} == {uid("anna")}


def test_a_source_that_is_not_loaded_up_to_as_of_is_a_transient_error(
    new_database: Callable[[str | None], Database], redis_client: redis.Redis
) -> None:
    with SimpleHouse(new_database("simple"), redis_client) as house:
        house.fill(several(), venues=TWO_VENUES)
        house.superuser.execute(
            "CREATE OR REPLACE VIEW source.freshness WITH (security_invoker) AS "
            "SELECT DISTINCT v.tenant_id, '2024-06-30T23:59:59Z'::timestamptz AS loaded_through "
            "FROM public.venues AS v"
        )
        scoring = house.run()
        assert [type(failure.error) for failure in scoring.failures] == [TransientError] * 2
        assert not scoring.failures[0].permanent
        assert "2024-06-30 23:59:59" in (scoring.attempts[VENUE].error or "")
        assert len(scoring.unfinished) == 2
        assert all(not rows for rows in house.row_versions().values())
        assert house.run(AS_OF - timedelta(seconds=1)).unfinished == []


def test_a_tenant_without_known_freshness_is_a_transient_error(
    new_database: Callable[[str | None], Database], redis_client: redis.Redis
) -> None:
    with SimpleHouse(new_database("simple"), redis_client) as house:
        house.fill(several(), venues=TWO_VENUES)
        house.superuser.execute(
            "CREATE OR REPLACE VIEW source.freshness WITH (security_invoker) AS "
            "SELECT NULL::uuid AS tenant_id, now() AS loaded_through WHERE FALSE"
        )
        assert {type(failure.error) for failure in house.run().failures} == {TransientError}


@contextmanager
def bad_venue(house: House, venue_id: UUID) -> Iterator[None]:
    """Make every write of one venue's scores fail."""
    house.superuser.execute(
        f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'disk on fire'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON public.customer_rfm_state
        FOR EACH ROW WHEN (new.venue_id = '{venue_id}') EXECUTE FUNCTION refuse();
        """
    )
    try:
        yield
    finally:
        house.superuser.execute("DROP FUNCTION refuse CASCADE")


def test_a_bad_venue_does_not_affect_the_others_and_a_second_try_does_only_it(
    simple_house: SimpleHouse,
) -> None:
    third = uid("third venue")
    simple_house.fill(
        [*several(), Sale("eve", ago(1), venue=third)], venues=[*TWO_VENUES, (third, TENANT)]
    )
    settings = make_settings()
    planned = simple_house.plan(AS_OF, settings)
    with bad_venue(simple_house, OTHER_VENUE):
        first = simple_house.work(planned)
    assert [failure.unit.id for failure in first.failures] == [OTHER_VENUE]
    assert {venue: a.outcome for venue, a in first.attempts.items()} == {
        VENUE: "succeeded",
        OTHER_VENUE: "failed",
        third: "succeeded",
    }
    assert first.attempts[OTHER_VENUE].error == "RaiseException: disk on fire"
    (line,) = first.unfinished
    assert "disk on fire" in line
    assert venues_shown(simple_house) == shown(VENUE, third)

    second = simple_house.work(planned)
    assert (second.failures, second.unfinished) == ([], [])
    assert venues_shown(simple_house) == shown(VENUE, OTHER_VENUE, third)
    tries = "SELECT unit_id, count(*) FROM jobs.unit_run GROUP BY unit_id"
    assert dict(simple_house.superuser.execute(tries).fetchall()) == {
        VENUE: 1,
        OTHER_VENUE: 2,
        third: 1,
    }


def test_a_batch_that_ended_well_is_done_again_only_after_a_clear(
    simple_house: SimpleHouse,
) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    settings = make_settings()
    planned = simple_house.plan(AS_OF, settings)
    tries = "SELECT unit_id, count(*) FROM jobs.unit_run GROUP BY unit_id"
    for clear_number, done in ((0, 1), (0, 1), (1, 2)):
        scoring = simple_house.work(planned, clear_number=clear_number)
        assert {a.outcome for a in scoring.attempts.values()} == {"succeeded"}
        assert dict(simple_house.superuser.execute(tries).fetchall()) == {
            VENUE: done,
            OTHER_VENUE: done,
        }


def test_scores_of_a_venue_that_another_tenant_holds_are_not_touched(
    simple_house: SimpleHouse,
) -> None:
    simple_house.fill([Sale("anna", ago(1))])
    settings = make_settings()
    planned = simple_house.plan(AS_OF, settings)
    # another run came between plan and work
    simple_house.superuser.execute(
        "INSERT INTO venue_rfm_state (venue_id, tenant_id) VALUES (%s, %s)", [VENUE, OTHER_TENANT]
    )
    scoring = simple_house.work(planned)
    assert [failure.permanent for failure in scoring.failures] == [False]
    assert "belong to another tenant" in (scoring.attempts[VENUE].error or "")


def test_the_summary_has_customers_segments_revenue_and_currency(
    simple_house: SimpleHouse,
) -> None:
    simple_house.fill([Sale("anna", ago(1), Decimal("12.50")), Sale("ben", ago(200), 3)])
    summary = simple_house.run().attempts[VENUE].summary
    assert summary == {
        # anna: 5 + 1 + 3 (one of two spent less) = 9; ben: 1 + 1 + 1
        "customers": 2,
        "segments": {"VIP": 0, "Regular": 1, "At-Risk": 0, "Lost": 1},
        "revenue": "15.50",
        "currency": "USD",
    }


def test_an_erased_customer_whose_account_is_gone_is_left_out_too(
    platform_house: PlatformHouse,
) -> None:
    platform_venue(platform_house, {"a": 100, "b": 200})
    platform_house.run()
    request = {"id": uuid4(), "tenant_id": TENANT, "user_id": uid("a"), "status": "COMPLETED"}
    platform_house.insert(
        "gdpr_deletion_requests", [request | {"created_at": LONG_AGO, "updated_at": LONG_AGO}]
    )
    platform_house.superuser.execute("DELETE FROM users WHERE id = %s", [uid("a")])
    platform_house.run(force=True)
    assert not any(uid("a") in row for row in platform_house.row_versions()["customer_rfm_state"])


def test_a_moved_venue_keeps_its_rows_until_its_new_tenant_can_be_scored(
    simple_house: SimpleHouse,
) -> None:
    simple_house.fill(several(), venues=TWO_VENUES)
    simple_house.run()
    before = simple_house.view("customer_rfm_scores")
    for table, key in (("venues", "id"), ("orders", "venue_id")):
        simple_house.superuser.execute(
            sql.SQL("UPDATE {} SET tenant_id = %s WHERE {} = %s").format(
                sql.Identifier(table), sql.Identifier(key)
            ),
            [OTHER_TENANT, OTHER_VENUE],
        )
    simple_house.superuser.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'no room'; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT ON customer_segments "
        "FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    try:
        scoring = simple_house.run(AS_OF + DAY, settings={"include_venues": [OTHER_VENUE]})
    finally:
        simple_house.superuser.execute("DROP FUNCTION refuse() CASCADE")
    assert len(scoring.unfinished) == 1
    assert simple_house.view("customer_rfm_scores") == before


def test_a_second_run_does_not_compare_all_customers_with_all(
    simple_house: SimpleHouse,
) -> None:
    # A nested loop, chosen when the planner expects few rows, was 50 times slower.
    customers = 400
    simple_house.fill(
        [Sale(f"customer {number}", ago(number % 300)) for number in range(customers)]
    )
    simple_house.run()
    settings = RfmScoringSettings()
    parameters = bound_names(settings, AS_OF) | {
        "venue_ids": [VENUE],
        "tenant_id": TENANT,
        "as_of": AS_OF,
        "currencies": [None],
        "rules_hash": settings.rules_hash(),
        "rules": Jsonb(settings.rules_as_json()),
        "dry_run": False,
    }
    explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + statement(
        "venue_analytics.jobs.rfm_scoring", "score"
    )
    superuser = simple_house.superuser
    with superuser.transaction(force_rollback=True):
        superuser.execute("SELECT set_config('app.current_tenant_id', %s, TRUE)", [str(TENANT)])
        cursor = superuser.execute(explain, parameters)
        ((plan,),) = cursor.fetchone() or ()
    most = max(_rows_looked_at(plan["Plan"]))
    assert customers <= most <= 5 * customers


def _rows_looked_at(node: dict[str, Any]) -> Iterator[float]:
    """Yield the total number of rows that each node of an executed plan returned or discarded."""
    removed = sum(value for name, value in node.items() if name.startswith("Rows Removed"))
    yield (node["Actual Rows"] + removed) * node["Actual Loops"]
    for inner in node.get("Plans", ()):
        yield from _rows_looked_at(inner)
