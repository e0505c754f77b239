# ruff: noqa: S608 (the names in queries are those of the tables under test)
from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from venue_analytics.demo.platform import (
    CUSTOMERS,
    TABLES,
    TENANTS,
    PlatformConflictError,
    PlatformSummary,
    load_platform,
)
from venue_analytics.demo.servers import PostgresServer

UNTIL = datetime(2026, 3, 1, tzinfo=UTC)
SCALE = 0.2


class Server:
    """A separate PostgreSQL, with a role that owns databases and is not a superuser."""

    def __init__(self, folder: Path, version: int) -> None:
        self._server = PostgresServer(folder, version)
        self._server.start()
        self._server.prepare({})
        self.superuser_uri = self._server.superuser_uri()

    def database(self, name: str) -> str:
        with psycopg.connect(self.superuser_uri, autocommit=True) as session:
            session.execute(f"CREATE DATABASE {name} OWNER analytics_owner")
        return make_conninfo(self.superuser_uri, user="analytics_owner", dbname=name)

    def read(self, database: str, query: str) -> list[tuple[Any, ...]]:
        """Read while bypassing row-level security, as only a test may."""
        conninfo = make_conninfo(self.superuser_uri, dbname=database)
        with psycopg.connect(conninfo, options="-c timezone=UTC") as session:
            return session.execute(query).fetchall()

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def server(server_directory: Path) -> Iterator[Server]:
    server = Server(server_directory / "platform18", 18)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def owner_uri(server: Server) -> str:
    return server.database("demo")


@pytest.fixture(scope="module")
def summary(owner_uri: str) -> PlatformSummary:
    return load_platform(owner_uri, until=UNTIL, scale=SCALE)


@pytest.fixture
def read(server: Server, summary: PlatformSummary) -> Any:
    return lambda query: server.read("demo", query)


def checksums(server: Server, database: str) -> dict[str, str]:
    return {
        table: server.read(
            database, f"SELECT md5(string_agg(t::text, ';' ORDER BY t.id)) FROM {table} AS t"
        )[0][0]
        for table in TABLES
    }


def test_the_same_seed_makes_the_same_rows_on_postgresql_16_and_18(
    server: Server, server_directory: Path
) -> None:
    load_platform(server.database("on_18"), until=UNTIL, scale=0.02, seed=7)
    older = Server(server_directory / "platform16", 16)
    try:
        # A session in another time zone, where it is still the day before, must not matter.
        with psycopg.connect(older.superuser_uri, autocommit=True) as session:
            session.execute("ALTER ROLE analytics_owner SET timezone = 'America/St_Johns'")
        load_platform(older.database("on_16"), until=UNTIL, scale=0.02, seed=7)
        assert checksums(older, "on_16") == checksums(server, "on_18")
    finally:
        older.stop()


def test_another_seed_makes_other_customers_at_the_same_venues(server: Server) -> None:
    for seed in (1, 2):
        load_platform(server.database(f"seed_{seed}"), until=UNTIL, scale=0.02, seed=seed)
    first, second = checksums(server, "seed_1"), checksums(server, "seed_2")
    same = {table for table in TABLES if first[table] == second[table]}
    assert same == {"tenants", "venues"}


def test_a_second_load_changes_nothing_and_counts_the_existing_rows(
    server: Server, owner_uri: str, summary: PlatformSummary
) -> None:
    before = checksums(server, "demo")
    later = UNTIL + timedelta(days=1)
    assert load_platform(owner_uri, until=later, scale=SCALE * 2, seed=5) == summary
    assert checksums(server, "demo") == before


def test_the_summary_counts_every_row_that_a_tenant_owns(
    read: Any, summary: PlatformSummary
) -> None:
    counts = {table: read(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}
    # One venue belongs to no tenant.
    assert asdict(summary) == counts | {"venues": counts["venues"] - 1}
    assert summary.users == CUSTOMERS * SCALE
    # Customers have four orders on average.
    assert summary.orders == pytest.approx(4 * summary.users, rel=0.05)


def test_no_row_is_dated_at_or_after_until_and_every_change_follows_its_creation(
    read: Any,
) -> None:
    columns = read(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND data_type = 'timestamp with time zone'"
        " AND column_name NOT IN ('starts_at', 'ends_at')"
    )
    assert len(columns) == 20
    for table, column in columns:
        latest = read(f"SELECT max({column}) FROM {table}")[0][0]
        assert latest is None or latest < UNTIL, f"{table}.{column}"
    for table in {table for table, column in columns if column == "updated_at"}:
        assert read(f"SELECT count(*) FROM {table} WHERE updated_at < created_at") == [(0,)], table


def test_events_span_two_and_a_half_years_and_some_are_in_the_future(read: Any) -> None:
    [(first, last)] = read("SELECT min(starts_at), max(starts_at) FROM event_schedules")
    assert timedelta(days=850) < UNTIL - first <= timedelta(days=913)
    assert timedelta(days=60) < last - UNTIL < timedelta(days=121)


def test_events_start_at_the_venues_own_afternoon_or_evening(read: Any) -> None:
    hours = read(
        "SELECT DISTINCT extract(HOUR FROM starts_at AT TIME ZONE timezone)::int"
        " FROM event_schedules"
    )
    assert {hour for (hour,) in hours} == {15, 19, 20}
    assert read(
        "SELECT count(*) FROM event_schedules AS s JOIN events AS e ON e.id = s.event_id"
        " JOIN venues AS v ON v.id = e.venue_id WHERE s.timezone <> coalesce(v.timezone, 'UTC')"
    ) == [(0,)]


def test_an_order_is_made_for_an_announced_event_of_its_own_tenant_before_it_starts(
    read: Any,
) -> None:
    assert read(
        "SELECT count(*) FROM orders AS o"
        " LEFT JOIN events AS e ON e.id = o.event_id AND e.tenant_id = o.tenant_id"
        " LEFT JOIN event_schedules AS s ON s.event_id = e.id"
        " WHERE (o.created_at BETWEEN e.created_at AND s.starts_at) IS NOT TRUE"
    ) == [(0,)]


def test_items_add_up_to_their_order_unless_its_amount_is_faulty(read: Any) -> None:
    differing = read(
        "SELECT o.total_cents FROM orders AS o JOIN order_items AS i ON i.order_id = o.id"
        " GROUP BY o.id HAVING sum(i.total_price_cents) IS DISTINCT FROM o.total_cents"
        " OR sum(i.quantity) <> o.ticket_quantity OR count(*) NOT BETWEEN 1 AND 3"
        " OR bool_or(i.total_price_cents <> i.quantity * i.unit_price_cents)"
    )
    assert all(cents is None or cents < 0 for (cents,) in differing)
    # Five orders have no amount, and five a negative one.
    assert len(differing) == 10


def test_no_house_is_oversold_at_full_size(server: Server) -> None:
    load_platform(server.database("full_size"), until=UNTIL, scale=1, seed=3)
    assert server.read(
        "full_size",
        "SELECT count(*) FROM event_capacity AS c JOIN events AS e ON e.id = c.event_id"
        " JOIN venues AS v ON v.id = e.venue_id"
        " WHERE NOT (c.sold_count <= c.total_capacity AND c.total_capacity <= v.max_capacity)",
    ) == [(0,)]
    assert server.read(
        "full_size",
        "SELECT sum(c.sold_count) - (SELECT sum(ticket_quantity) FROM orders WHERE status IN"
        " ('CONFIRMED', 'COMPLETED', 'PAID', 'REFUND_INITIATED')) FROM event_capacity AS c",
    ) == [(0,)]


def test_a_dozen_venues_in_five_time_zones_one_of_them_half_an_hour_off(read: Any) -> None:
    venues = read("SELECT name, timezone, status FROM venues")
    assert len(venues) == 12
    assert any(not name.isascii() for name, _, _ in venues)
    assert {zone for _, zone, _ in venues} == {
        "Europe/Berlin",
        "Europe/Lisbon",
        "America/Toronto",
        "America/Halifax",
        "America/St_Johns",
        None,
    }
    assert [name for name, _, status in venues if status == "CLOSED"] == ["Old Mill Playhouse"]


def test_the_special_venues_exist(read: Any) -> None:
    venues = read(
        "SELECT v.name, v.tenant_id, count(DISTINCT e.id), count(o.id), count(DISTINCT o.user_id),"
        " count(o.id) FILTER (WHERE o.user_id IS NULL), count(DISTINCT o.tenant_id),"
        " max(o.created_at)::date"
        " FROM venues AS v LEFT JOIN events AS e ON e.venue_id = v.id"
        " LEFT JOIN orders AS o ON o.event_id = e.id GROUP BY v.id"
    )
    by_name = {name: rest for name, *rest in venues}
    assert [name for name, rest in by_name.items() if rest[0] is None] == ["Quayside Bandstand"]
    assert by_name["Quayside Bandstand"][5] == 2
    assert by_name["Paper Crane Studio"][1] > 0
    assert by_name["Paper Crane Studio"][2] == 0
    assert by_name["Signal Hill Cellar"][2] >= 5
    assert by_name["Signal Hill Cellar"][3:5] == [1, 0]
    assert by_name["Old Mill Playhouse"][6] < date(2025, 3, 2)
    busy = [rest for rest in by_name.values() if rest[2] > 1000]
    assert len(busy) == 6
    assert min(rest[6] for rest in busy) >= date(2026, 2, 26)


def test_a_venue_sells_in_one_currency_except_for_a_few_orders(read: Any) -> None:
    shares = read(
        "SELECT max(n) * 1.0 / sum(n) FROM (SELECT e.venue_id, o.currency, count(*) AS n"
        " FROM orders AS o JOIN events AS e ON e.id = o.event_id WHERE o.currency IS NOT NULL"
        " GROUP BY e.venue_id, o.currency) AS counted GROUP BY venue_id"
    )
    assert min(share for (share,) in shares) > 0.97
    [(currencies, elsewhere)] = read(
        "SELECT count(DISTINCT currency), count(DISTINCT v.id) FILTER (WHERE v.tenant_id ="
        f" '{TENANTS['Northlight Live']}' AND o.currency = 'CAD') FROM orders AS o"
        " JOIN events AS e ON e.id = o.event_id JOIN venues AS v ON v.id = e.venue_id"
    )
    assert currencies == 2
    assert elsewhere >= 1


def test_orders_have_every_status_and_most_are_sales(read: Any, summary: PlatformSummary) -> None:
    counts = dict(read("SELECT status, count(*) FROM orders GROUP BY status"))
    assert set(counts) == {
        "PENDING",
        "RESERVED",
        "CONFIRMED",
        "COMPLETED",
        "CANCELLED",
        "EXPIRED",
        "REFUNDED",
        "PAID",
        "PAYMENT_FAILED",
        "REFUND_INITIATED",
    }
    sales = counts["CONFIRMED"] + counts["COMPLETED"] + counts["PAID"]
    assert 0.75 < sales / summary.orders < 0.9
    assert read("SELECT count(*) FROM orders WHERE total_amount IS NOT NULL") == [(0,)]


def test_refunds_are_whole_partial_failed_pending_and_sometimes_not_kept(read: Any) -> None:
    kinds = dict(
        read(
            "SELECT concat_ws(' ', CASE WHEN o.status IN ('REFUNDED', 'REFUND_INITIATED')"
            " THEN o.status ELSE 'sale' END, coalesce(r.refund_status, 'none'),"
            " CASE WHEN r.refund_amount_cents = o.total_cents THEN 'whole'"
            " WHEN r.refund_amount_cents BETWEEN 1 AND o.total_cents THEN 'partial' END),"
            " count(*) FROM orders AS o LEFT JOIN order_refunds AS r ON r.order_id = o.id"
            " WHERE o.total_cents > 0 AND (r.id IS NOT NULL OR o.status = 'REFUNDED') GROUP BY 1"
        )
    )
    assert set(kinds) == {
        "REFUNDED COMPLETED whole",
        "REFUNDED none",
        "REFUND_INITIATED PENDING whole",
        "sale COMPLETED partial",
        "sale FAILED partial",
        "sale PENDING partial",
    }
    # One refunded order in ten has no refund.
    refunded = kinds["REFUNDED none"] + kinds["REFUNDED COMPLETED whole"]
    assert 0.05 < kinds["REFUNDED none"] / refunded < 0.2


def test_guests_strangers_and_buyers_in_both_tenants_are_among_the_customers(read: Any) -> None:
    [(guests, strangers, elsewhere)] = read(
        "SELECT avg((o.user_id IS NULL)::int), avg((o.user_id IS NOT NULL AND u.id IS NULL)::int),"
        " count(DISTINCT u.id) FILTER (WHERE u.tenant_id <> o.tenant_id)"
        " FROM orders AS o LEFT JOIN users AS u ON u.id = o.user_id"
    )
    assert 0.04 < guests < 0.06
    assert 0.002 < strangers < 0.006
    assert elsewhere > 10


def test_some_customers_are_deleted_after_their_last_order_and_some_ask_for_erasure(
    read: Any,
) -> None:
    [(deleted, live)] = read(
        "SELECT avg((deleted_at IS NOT NULL)::int), count(*) FILTER (WHERE deleted_at IS NULL"
        " AND status = 'DELETED') FROM users"
    )
    assert 0.01 < deleted < 0.02
    assert live == 0
    assert read(
        "SELECT count(*) FROM users AS u JOIN orders AS o ON o.user_id = u.id"
        " WHERE o.created_at > u.deleted_at OR o.created_at < u.created_at"
    ) == [(0,)]
    assert dict(read("SELECT status, count(*) FROM gdpr_deletion_requests GROUP BY status")) == {
        "COMPLETED": 4,
        "PENDING": 5,
        "REJECTED": 3,
    }


def test_a_handful_of_sales_are_faulty_and_some_are_free(read: Any) -> None:
    [faults] = read(
        "SELECT count(*) FILTER (WHERE total_cents IS NULL),"
        " count(*) FILTER (WHERE total_cents < 0), count(*) FILTER (WHERE currency IS NULL),"
        " count(*) FILTER (WHERE total_cents = 0) > 10"
        " FROM orders WHERE status IN ('CONFIRMED', 'COMPLETED', 'PAID')"
    )
    assert faults == (5, 5, 5, True)


def test_tickets_are_scanned_at_the_door_of_past_events(read: Any) -> None:
    results = dict(read("SELECT result, count(*) FROM ticket_scans GROUP BY result"))
    assert set(results) == {"VALID", "DUPLICATE", "INVALID"}
    assert results["VALID"] > 0.95 * sum(results.values())
    assert read(
        "SELECT count(*) FROM ticket_scans AS t JOIN event_schedules AS s USING (event_id)"
        " WHERE t.scanned_at NOT BETWEEN s.starts_at - interval '1 hour'"
        " AND s.starts_at + interval '20 minutes'"
    ) == [(0,)]
    assert read(
        "SELECT bool_and(scans = 2) FROM (SELECT count(*) AS scans FROM ticket_scans"
        " GROUP BY ticket_id HAVING bool_or(result = 'DUPLICATE')) AS twice"
    ) == [(True,)]


def test_every_segment_has_its_share_of_a_bigger_venues_customers(read: Any) -> None:
    # The audited rules of domain.md section 3, written out; shares are those within a venue.
    shares = read(
        f"""
        WITH pairs AS (
            SELECT
                e.venue_id, count(*) AS orders, sum(o.total_cents) AS cents,
                floor(extract(EPOCH FROM '{UNTIL}'::timestamptz - max(o.created_at)) / 86400) AS age
            FROM orders AS o
            JOIN events AS e ON e.id = o.event_id
            JOIN users AS u ON u.id = o.user_id
            WHERE o.status IN ('CONFIRMED', 'COMPLETED', 'PAID') AND o.total_cents >= 0
            GROUP BY e.venue_id, o.user_id
        ),
        scored AS (
            SELECT
                venue_id, age,
                CASE WHEN age <= 30 THEN 5 WHEN age <= 60 THEN 4 WHEN age <= 90 THEN 3
                    WHEN age <= 180 THEN 2 ELSE 1 END
                + CASE WHEN orders >= 10 THEN 5 WHEN orders >= 7 THEN 4 WHEN orders >= 4 THEN 3
                    WHEN orders >= 2 THEN 2 ELSE 1 END
                + least(5, 1 + floor(5 * percent_rank() OVER (
                    PARTITION BY venue_id ORDER BY cents))) AS total
            FROM pairs
        ),
        segmented AS (
            SELECT venue_id, CASE WHEN total >= 12 THEN 'VIP' WHEN total >= 8 THEN 'Regular'
                WHEN total >= 5 AND age <= 180 THEN 'At-Risk' ELSE 'Lost' END AS segment
            FROM scored
        )
        SELECT v.name, s.segment, count(*) * 1.0 / sum(count(*)) OVER (PARTITION BY v.id)
        FROM segmented AS s JOIN venues AS v ON v.id = s.venue_id
        WHERE v.max_capacity >= 600 AND v.tenant_id IS NOT NULL
        GROUP BY v.id, s.segment
        """
    )
    assert len(shares) == 6 * 4
    assert min(share for _, _, share in shares) > 0.03
    assert max(share for _, _, share in shares) < 0.7


@pytest.mark.parametrize("table", TABLES)
def test_even_the_owner_sees_one_tenants_rows_only(owner_uri: str, read: Any, table: str) -> None:
    with psycopg.connect(owner_uri) as session:
        with pytest.raises(psycopg.errors.UndefinedObject, match=r"app\.current_tenant_id"):
            session.execute(f"SELECT FROM {table}")
        session.rollback()
        tenant = TENANTS["Copperline Stages"]
        session.execute("SELECT set_config('app.current_tenant_id', %s, true)", [str(tenant)])
        column = "id" if table == "tenants" else "tenant_id"
        seen = session.execute(
            f"SELECT count(*), count(*) FILTER (WHERE {column} = %s) FROM {table}", [tenant]
        ).fetchone()
    [(own,)] = read(f"SELECT count(*) FROM {table} WHERE {column} = '{tenant}'")
    assert own > 0
    assert seen == (own, own)


def test_the_indexes_that_the_adapter_needs_exist(read: Any) -> None:
    indexes = {
        definition.partition(" USING btree ")[2]
        for (definition,) in read(
            "SELECT tablename || indexdef FROM pg_indexes WHERE schemaname = 'public'"
        )
    }
    included = "(id, tenant_id, status, currency, created_at, updated_at, total_cents)"
    assert indexes >= {
        f"(event_id, user_id) INCLUDE {included}",
        "(venue_id)",
        "(tenant_id)",
    }


def test_the_tables_are_analysed(read: Any, summary: PlatformSummary) -> None:
    estimates = dict(read("SELECT relname, reltuples::bigint FROM pg_class WHERE relkind = 'r'"))
    assert estimates["orders"] == summary.orders


@pytest.mark.parametrize(
    "until",
    [
        datetime(2026, 3, 1),  # noqa: DTZ001
        datetime(2026, 3, 1, 12, tzinfo=UTC),
        datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=1))),
    ],
    ids=["naive", "noon", "midnight elsewhere"],
)
def test_until_must_be_a_midnight_in_utc(until: datetime) -> None:
    with pytest.raises(ValueError, match="it must be a midnight in UTC"):
        load_platform("", until=until)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scale_must_be_in_its_range(scale: float) -> None:
    with pytest.raises(ValueError, match=r"it must be from 0\.01 to 1000"):
        load_platform("", until=UNTIL, scale=scale)


def test_the_smallest_scale_loads(server: Server) -> None:
    summary = load_platform(server.database("smallest"), until=UNTIL, scale=0.01)
    assert min(asdict(summary).values()) >= 1


def test_tables_of_another_application_are_left_alone(server: Server) -> None:
    uri = server.database("occupied")
    with psycopg.connect(uri) as session:
        session.execute("CREATE TABLE orders AS SELECT 1 AS id")
    with pytest.raises(PlatformConflictError, match="already has orders"):
        load_platform(uri, until=UNTIL, scale=0.01)
    assert server.read("occupied", "SELECT id FROM orders") == [(1,)]
    assert server.read("occupied", "SELECT to_regclass('public.users')") == [(None,)]


def test_a_load_that_fails_halfway_leaves_nothing_behind(server: Server) -> None:
    uri = server.database("halfway")
    # The tables exist by then; a seed this large does not fit PostgreSQL's bigint.
    with pytest.raises(psycopg.Error, match="hashtextextended"):
        load_platform(uri, until=UNTIL, scale=0.01, seed=2**64)
    assert server.read("halfway", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [
        (0,)
    ]


def test_two_loaders_at_once_load_once(server: Server) -> None:
    uri = server.database("at_once")
    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load_platform, uri, until=UNTIL, scale=0.05) for _ in range(2)]
        first, second = (load.result() for load in loads)
    assert first == second
    assert first.users == CUSTOMERS * 0.05
