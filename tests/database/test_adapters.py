"""Each shipped adapter: what it returns for the tables that it is defined over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
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
def test_an_adapter_has_every_column_of_the_contract_in_its_type(
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
        found = connection.execute(
            "SELECT status, is_sale, refunded_at, amount_cents, currency FROM source.orders"
        ).fetchall()
    is_sale = expected in ("paid", "refunded")
    # an order with status refunded was fully refunded when it was made
    assert found == [(expected, is_sale, AT if status == "refunded" else None, 500, "USD")]


@pytest.mark.parametrize(
    ("amount", "cents"),
    [
        ("12.34", 1234),
        ("-0.01", -1),
        ("0.125", 13),
        (None, None),
        ("1e30", 9 * 10**18),
        ("-1e30", -9 * 10**18),
        ("NaN", 9 * 10**18),
    ],
)
def test_an_amount_becomes_whole_cents_and_an_absurd_one_the_largest(
    simple: Database, amount: str | None, cents: int | None
) -> None:
    with simple.superuser() as connection:
        insert(connection, "orders", id=uuid4(), status="completed", total_amount=amount)
        assert connection.execute("SELECT amount_cents FROM source.orders").fetchone() == (cents,)


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
            "SELECT status, is_sale, amount_cents, venue_id, customer_id, ordered_at "
            "FROM source.orders"
        ).fetchall()
    assert found == [(expected, expected in ("paid", "refunded"), 1234, VENUE, USER, AT)]


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
    ("order_status", "refunded_at"),
    [("COMPLETED", None), ("REFUND_INITIATED", None), ("REFUNDED", LATER)],
)
@pytest.mark.parametrize(
    ("refund_status", "refunds"),
    [(None, []), ("COMPLETED", [(500, AT)]), ("PENDING", []), ("FAILED", [])],
)
def test_platform_reads_completed_refunds_and_when_an_order_was_refunded(
    platform: Database,
    order_status: str,
    refunded_at: datetime | None,
    refund_status: str | None,
    refunds: list[tuple[int, datetime]],
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
        found = connection.execute(
            "SELECT amount_cents, refunded_at FROM source.refunds"
        ).fetchall()
        moment = connection.execute("SELECT refunded_at FROM source.orders").fetchone()
    assert found == refunds
    assert moment == (refunded_at,)


@pytest.mark.parametrize(
    ("status", "deleted_at", "is_open"),
    [
        ("ACTIVE", None, True),
        ("CLOSED", None, False),
        ("ARCHIVED", None, False),
        ("ACTIVE", AT, False),
    ],
)
def test_platform_distinguishes_open_venues_from_closed_and_deleted_ones(
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
def test_platform_marks_a_customer_as_erased_from_the_request_on(
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
def test_platform_recognises_deleted_customers(
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
def test_with_row_level_security_the_jobs_list_all_venues_but_read_one_tenants_rows(
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
