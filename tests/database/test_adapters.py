"""Each shipped adapter: what it makes of the tables that it is defined over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from tests.databases import PLATFORM_TABLES, SIMPLE_TABLES, Database

from venue_analytics.database.contract import VIEWS
from venue_analytics.database.migrate import migrate

pytestmark = pytest.mark.both_versions

AT = datetime(2024, 6, 1, tzinfo=UTC)
LATER = datetime(2024, 6, 2, tzinfo=UTC)
TENANT, VENUE, EVENT, USER = (UUID(int=number) for number in range(1, 5))


def insert(connection: psycopg.Connection, table: str, **values: Any) -> None:
    connection.execute(
        sql.SQL("INSERT INTO public.{} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(map(sql.Placeholder, values)),
        ),
        values,
    )


@pytest.mark.parametrize("adapter", ["simple", "platform", "csv"])
def test_an_adapter_gives_every_column_of_the_contract_in_its_type(
    new_database: Callable[[str | None], Database], adapter: str
) -> None:
    with new_database(adapter).superuser() as connection:
        for view in VIEWS:
            rows = connection.execute(
                "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
                "WHERE attrelid = %s::regclass AND attnum > 0",
                [f"source.{view.name}"],
            ).fetchall()
            assert dict(rows) == view.columns, view.name


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("completed", "paid"),
        ("refunded", "refunded"),
        ("pending", "pending"),
        ("cancelled", "cancelled"),
        ("anything else", "cancelled"),
        (None, "cancelled"),
    ],
)
def test_simple_reads_each_status(simple: Database, status: str | None, expected: str) -> None:
    with simple.superuser() as connection:
        insert(connection, "orders", id=uuid4(), status=status, total_amount=5, created_at=AT)
        found = connection.execute("SELECT status, amount, currency FROM source.orders").fetchall()
        assert found == [(expected, 5, "USD")]
        refunds = connection.execute("SELECT amount, refunded_at FROM source.refunds").fetchall()
        assert refunds == ([(5, AT)] if status == "refunded" else [])


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("CONFIRMED", "paid"),
        ("COMPLETED", "paid"),
        ("PAID", "paid"),
        ("REFUND_INITIATED", "paid"),
        ("REFUNDED", "refunded"),
        ("PENDING", "pending"),
        ("RESERVED", "pending"),
        ("CANCELLED", "cancelled"),
        ("EXPIRED", "cancelled"),
        ("PAYMENT_FAILED", "cancelled"),
    ],
)
def test_platform_reads_each_status_and_cents(
    platform: Database, status: str, expected: str
) -> None:
    with platform.superuser() as connection:
        platform_order(connection, status)
        found = connection.execute(
            "SELECT status, amount, venue_id, customer_id, ordered_at FROM source.orders"
        ).fetchall()
    assert found == [(expected, Decimal("12.34"), VENUE, USER, AT)]


def platform_order(connection: psycopg.Connection, status: str) -> UUID:
    made = {"created_at": AT, "updated_at": LATER}
    event = {"id": EVENT, "tenant_id": TENANT, "venue_id": VENUE, "name": "Show"}
    insert(connection, "events", **event, category="music", status="PUBLISHED", **made)
    order = uuid4()
    insert(
        connection,
        "orders",
        id=order,
        tenant_id=TENANT,
        user_id=USER,
        event_id=EVENT,
        status=status,
        total_cents=1234,
        total_amount=None,
        currency="USD",
        ticket_quantity=2,
        **made,
    )
    return order


@pytest.mark.parametrize(
    ("order_status", "refund_status", "refunds"),
    [
        ("COMPLETED", None, []),
        ("COMPLETED", "COMPLETED", [(Decimal("5.00"), AT)]),
        ("COMPLETED", "PENDING", []),
        ("COMPLETED", "FAILED", []),
        # a refunded order that has no refund gets one: all of it, when it was updated
        ("REFUNDED", None, [(Decimal("12.34"), LATER)]),
        ("REFUNDED", "FAILED", [(Decimal("12.34"), LATER)]),
        # and nothing is subtracted twice
        ("REFUNDED", "COMPLETED", [(Decimal("5.00"), AT)]),
    ],
)
def test_platform_reads_each_refund_once(
    platform: Database,
    order_status: str,
    refund_status: str | None,
    refunds: list[tuple[Decimal, datetime]],
) -> None:
    with platform.superuser() as connection:
        order = platform_order(connection, order_status)
        if refund_status is not None:
            insert(
                connection,
                "order_refunds",
                id=uuid4(),
                tenant_id=TENANT,
                order_id=order,
                refund_amount_cents=500,
                refund_status=refund_status,
                created_at=AT,
                updated_at=AT,
            )
        found = connection.execute("SELECT amount, refunded_at FROM source.refunds").fetchall()
    assert found == refunds


@pytest.mark.parametrize(
    ("status", "deleted_at", "is_open"),
    [
        ("ACTIVE", None, True),
        ("CLOSED", None, False),
        ("ARCHIVED", None, False),
        ("ACTIVE", AT, False),
    ],
)
def test_platform_tells_open_venues_from_closed_and_deleted_ones(
    platform: Database, status: str, deleted_at: datetime | None, is_open: bool
) -> None:
    with platform.superuser() as connection:
        insert(
            connection,
            "venues",
            id=VENUE,
            tenant_id=TENANT,
            name="Hall",
            max_capacity=9,
            status=status,
            created_at=AT,
            updated_at=AT,
            deleted_at=deleted_at,
        )
        assert connection.execute("SELECT open FROM source.venues").fetchall() == [(is_open,)]


@pytest.mark.parametrize(
    ("request_status", "erased"),
    [
        (None, False),
        ("PENDING", True),
        ("COMPLETED", True),
        ("REJECTED", False),
        ("CANCELLED", False),
    ],
)
def test_platform_takes_a_customer_out_from_the_request_for_erasure_on(
    platform: Database, request_status: str | None, erased: bool
) -> None:
    made = {"created_at": AT, "updated_at": AT}
    with platform.superuser() as connection:
        user = {"id": USER, "tenant_id": TENANT, "email": "x@example.org", "status": "ACTIVE"}
        insert(connection, "users", **user, **made)
        if request_status is not None:
            request = {"id": uuid4(), "tenant_id": TENANT, "user_id": USER}
            insert(connection, "gdpr_deletion_requests", **request, status=request_status, **made)
        found = connection.execute("SELECT deleted, erased FROM source.customers").fetchall()
    assert found == [(False, erased)]


@pytest.mark.parametrize(
    ("status", "deleted_at", "deleted"),
    [("ACTIVE", None, False), ("DELETED", None, True), ("ACTIVE", AT, True)],
)
def test_platform_tells_deleted_customers(
    platform: Database, status: str, deleted_at: datetime | None, deleted: bool
) -> None:
    with platform.superuser() as connection:
        insert(
            connection,
            "users",
            id=USER,
            tenant_id=TENANT,
            email="x@example.org",
            status=status,
            created_at=AT,
            updated_at=AT,
            deleted_at=deleted_at,
        )
        assert connection.execute("SELECT deleted FROM source.customers").fetchall() == [(deleted,)]


@pytest.mark.parametrize("adapter", ["simple", "platform"])
def test_the_jobs_list_every_tenants_venues_and_read_one_tenants_where_tables_are_guarded(
    new_database: Callable[[str | None], Database], adapter: str
) -> None:
    database = new_database(None)
    tables = {"simple": SIMPLE_TABLES, "platform": PLATFORM_TABLES}[adapter]
    more = {"max_capacity": 9, "status": "ACTIVE", "created_at": AT, "updated_at": AT}
    with psycopg.connect(database.uri("analytics_owner"), autocommit=True) as connection:
        connection.execute(tables)
        for number in (1, 2):
            insert(
                connection,
                "venues",
                id=UUID(int=10 + number),
                tenant_id=UUID(int=number),
                name="Hall",
                **(more if adapter == "platform" else {}),
            )
        connection.execute(
            "ALTER TABLE venues ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
            "CREATE POLICY own ON venues "
            "USING (tenant_id = current_setting('app.current_tenant_id')::uuid)"
        )
    migrate(database.address("analytics_owner"), adapter=adapter)
    with database.jobs() as connection, connection.transaction():
        listed = connection.execute("SELECT venue_id FROM jobs.list_venues()").fetchall()
        assert sorted(listed) == [(UUID(int=11),), (UUID(int=12),)]
        connection.execute("SELECT set_config('app.current_tenant_id', %s, TRUE)", [str(TENANT)])
        own = connection.execute("SELECT venue_id FROM source.venues").fetchall()
        assert own == [(UUID(int=11),)]
