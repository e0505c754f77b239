"""`check-source` reports what is wrong in plain words; it exits 1 only if the contract breaks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from tests.databases import Database

from venue_analytics.database.check_source import SourceReport, check_source

NewDatabase = Callable[[str | None], Database]
TENANT, OTHER = UUID(int=1), UUID(int=2)
VENUE = UUID(int=11)

#: A tenant's venue, its customer and a sale, with nothing wrong.
SOUND = """
INSERT INTO venues VALUES (
    '00000000-0000-0000-0000-00000000000b', '00000000-0000-0000-0000-000000000001', 'Hall'
);
INSERT INTO users VALUES ('00000000-0000-0000-0000-000000000015');
INSERT INTO orders VALUES (
    '00000000-0000-0000-0000-00000000001f', '00000000-0000-0000-0000-000000000001',
    '00000000-0000-0000-0000-000000000015', '00000000-0000-0000-0000-00000000000b',
    'completed', 10, '2024-06-01Z'
);
"""


def replace_view(name: str, columns: str, rest: str = "") -> str:
    """Return the statements that redefine a contract view, as another adapter might."""
    return (
        f"DROP VIEW source.{name}; CREATE VIEW source.{name} WITH (security_invoker) AS "
        f"SELECT {columns} {rest}; GRANT SELECT ON source.{name} TO analytics_jobs, "
        "analytics_lister;"
    )


VENUE_COLUMNS = (
    "v.id AS venue_id, v.tenant_id, v.name, NULL::text AS timezone, NULL::text AS currency, "
    "NULL::integer AS capacity, TRUE AS open"
)
CUSTOMER_COLUMNS = (
    "u.id AS customer_id, NULL::uuid AS tenant_id, u.id::text AS external_id, FALSE AS deleted, "
    "FALSE AS erased, NULL::timestamptz AS updated_at"
)
ORDER_COLUMNS = (
    "o.id AS order_id, o.tenant_id, o.venue_id, NULL::uuid AS event_id, o.user_id AS customer_id, "
    "o.created_at AS ordered_at, NULL::timestamptz AS updated_at, o.status, "
    "TRUE AS is_sale, NULL::timestamptz AS refunded_at, "
    "source.cents(o.total_amount) AS amount_cents, FALSE AS is_rounded, 'USD'::text AS currency, "
    "NULL::integer AS tickets, NULL::text AS channel"
)


def look(database: Database, *changes: str) -> SourceReport:
    with database.superuser() as connection:
        for change in (SOUND, *changes):
            connection.execute(change)
    with database.jobs() as connection:
        return check_source(connection)


def command_line(database: Database) -> subprocess.CompletedProcess[str]:
    """Run `python -m venue_analytics check-source` as a user does, with the jobs' login."""
    return subprocess.run(
        [sys.executable, "-m", "venue_analytics", "check-source"],
        env=os.environ | {"AIRFLOW_CONN_ANALYTICS_DB": database.uri("analytics_jobs")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_sound_source_has_no_faults(simple: Database) -> None:
    report = look(simple)
    assert report.faults == []
    assert report.warnings == []
    assert (report.adapter, report.time_zones) == ("simple", {"UTC (none given)": 1})
    assert report.rows == {
        "venues": 1,
        "events": 0,
        "orders": 1,
        "refunds": 0,
        "scans": 0,
        "customers": 1,
        "freshness": 1,
    }


def order(number: int, **changes: str) -> str:
    """Return the statement that adds an order with some columns changed; values are SQL."""
    values = {
        "id": f"'{UUID(int=100 + number)}'",
        "tenant_id": f"'{TENANT}'",
        "user_id": f"'{UUID(int=21)}'",
        "venue_id": f"'{VENUE}'",
        "status": "'completed'",
        "total_amount": "5",
        "created_at": "'2024-06-02Z'",
    } | changes
    return f"INSERT INTO orders ({', '.join(values)}) VALUES ({', '.join(values.values())});"  # noqa: S608


def venue(venue_id: UUID, tenant: str, name: str) -> str:
    """Return the statement that adds a venue; the tenant is SQL."""
    return f"INSERT INTO venues VALUES ('{venue_id}', {tenant}, '{name}');"  # noqa: S608


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            order(1, venue_id="gen_random_uuid()") + order(2, venue_id="NULL"),
            "source.orders has 2 rows at venues that its tenant does not have",
        ),
        (
            order(1, user_id="gen_random_uuid()"),
            "source.orders has 1 rows by unknown customers",
        ),
        (order(1, total_amount="NULL"), "source.orders has 1 rows without an amount"),
        (order(1, total_amount="-1"), "source.orders has 1 rows of a negative amount"),
        (order(1, total_amount="1e10"), "source.orders has 1 rows of too large an amount"),
        (
            order(1, total_amount="0.125"),
            "source.orders has 1 rows of a fraction of a cent, taken as whole cents",
        ),
        (order(1, created_at="NULL"), "source.orders has 1 rows without a time"),
        (order(1, created_at="'2999-01-01Z'"), "source.orders has 1 rows in the future"),
        (
            venue(UUID(int=12), "NULL", "Tent"),
            f"venue Tent ({UUID(int=12)}) has no tenant: left out of every job",
        ),
    ],
)
def test_a_flaw_that_real_platforms_have_is_a_warning(
    simple: Database, change: str, words: str
) -> None:
    report = look(simple, change)
    assert report.faults == []
    assert [w.replace("1 row ", "1 rows ") for w in report.warnings] == [words]


def test_guests_are_neither_fault_nor_warning(simple: Database) -> None:
    report = look(simple, order(1, user_id="NULL"))
    assert (report.faults, report.warnings) == ([], [])


def test_a_source_without_venues_is_a_warning(simple: Database) -> None:
    report = look(simple, "DELETE FROM orders; DELETE FROM venues;")
    assert report.faults == []
    assert "source.venues has no rows: there is nothing to do" in report.warnings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP VIEW source.scans", "source.scans is missing"),
        (
            replace_view(
                "customers", CUSTOMER_COLUMNS.replace("FALSE AS erased, ", ""), "FROM users AS u"
            ),
            "source.customers.erased is missing: must be boolean",
        ),
        (
            replace_view(
                "orders",
                ORDER_COLUMNS.replace("source.cents(o.total_amount)", "o.total_amount"),
                "FROM orders AS o",
            ),
            "source.orders.amount_cents is of type numeric: must be bigint",
        ),
        (
            replace_view(
                "orders",
                ORDER_COLUMNS.replace("o.created_at", "o.created_at::timestamp"),
                "FROM orders AS o",
            ),
            (
                "source.orders.ordered_at is of type timestamp without time zone: "
                "must be timestamp with time zone"
            ),
        ),
        (
            replace_view("orders", ORDER_COLUMNS, "FROM orders AS o"),
            "source.orders has 1 rows of unknown status",
        ),
        (
            replace_view(
                "orders",
                ORDER_COLUMNS.replace("o.status", "'pending'::text AS status"),
                "FROM orders AS o",
            ),
            "source.orders has 1 rows whose is_sale contradicts their status",
        ),
        (
            replace_view(
                "orders",
                ORDER_COLUMNS.replace("o.status", "'paid'::text AS status"),
                "FROM orders AS o, generate_series(1, 3)",
            ),
            "source.orders has 2 rows whose order_id is not unique",
        ),
        (
            replace_view("customers", CUSTOMER_COLUMNS, "FROM users AS u, generate_series(1, 2)"),
            "source.customers has 1 rows whose customer_id, tenant_id is not unique",
        ),
        (
            replace_view("venues", VENUE_COLUMNS, "FROM venues AS v, generate_series(1, 2)"),
            f"source.venues has venue_id {VENUE} 2 times",
        ),
        (
            replace_view(
                "venues",
                VENUE_COLUMNS.replace("NULL::text AS timezone", "'CET/Summer'::text AS timezone"),
                "FROM venues AS v",
            ),
            f"venue Hall ({VENUE}) has time zone 'CET/Summer': must be an IANA name, or null",
        ),
        (
            replace_view("freshness", f"'{OTHER}'::uuid AS tenant_id, now() AS loaded_through"),
            (
                "source.freshness has rows for 0 of 1 tenants: "
                "venues of the other tenants cannot be processed"
            ),
        ),
        (
            replace_view(
                "freshness", f"'{TENANT}'::uuid AS tenant_id, NULL::timestamptz AS loaded_through"
            ),
            "source.freshness has 1 rows without loaded_through",
        ),
        (
            "REVOKE SELECT ON source.refunds FROM analytics_jobs",
            "source.refunds is not readable: GRANT SELECT ON source.refunds TO analytics_jobs",
        ),
        (
            "REVOKE SELECT ON public.users FROM analytics_jobs",
            (
                f"source.customers cannot be read for tenant {TENANT}: "
                "permission denied for table users"
            ),
        ),
        (
            "REVOKE SELECT ON public.venues FROM analytics_lister",
            "source.venues cannot be read: permission denied for table venues",
        ),
    ],
)
def test_a_breach_of_the_contract_is_a_fault(simple: Database, change: str, words: str) -> None:
    report = look(simple, change)
    assert words in [fault.replace("1 row ", "1 rows ") for fault in report.faults]


def test_a_fault_in_one_view_does_not_hide_faults_in_another(simple: Database) -> None:
    report = look(simple, "DROP VIEW source.scans; DROP VIEW source.events CASCADE;")
    assert {"source.scans is missing", "source.events is missing"} <= set(report.faults)


def test_orders_of_several_tenants_are_counted_together(simple: Database) -> None:
    second = UUID(int=12)
    report = look(
        simple,
        venue(second, f"'{OTHER}'", "Club"),
        order(1, tenant_id=f"'{OTHER}'", venue_id=f"'{second}'"),
        # at the other tenant's venue, which the order's tenant does not have
        order(2, venue_id=f"'{second}'"),
    )
    assert (report.rows["orders"], report.rows["customers"]) == (3, 1)
    assert [re.sub(r"\brow\b", "rows", w) for w in report.warnings] == [
        "source.orders has 1 rows at venues that its tenant does not have"
    ]


@pytest.mark.parametrize("adapter", ["simple", "platform", "csv"])
def test_an_adapter_over_empty_tables_keeps_the_contract(
    new_database: NewDatabase, adapter: str
) -> None:
    with new_database(adapter).jobs() as connection:
        assert check_source(connection).faults == []


def test_a_clean_platform_has_no_warnings(platform: Database) -> None:
    made: dict[str, Any] = {"at": "2024-06-01Z", "tenant": TENANT, "venue": VENUE}
    made |= {"event": UUID(int=41), "user": UUID(int=21), "order": UUID(int=31)}
    with platform.superuser() as connection:
        connection.execute(
            "INSERT INTO venues VALUES (%(venue)s, %(tenant)s, 'Hall', 'Europe/Berlin', 9, "
            "'ACTIVE', %(at)s, %(at)s, NULL)",
            made,
        )
        connection.execute(
            "INSERT INTO events VALUES (%(event)s, %(tenant)s, %(venue)s, 'Show', 'music', "
            "'PUBLISHED', %(at)s, %(at)s, NULL)",
            made,
        )
        connection.execute(
            "INSERT INTO users VALUES (%(user)s, %(tenant)s, 'x@example.org', 'ACTIVE', "
            "%(at)s, %(at)s, NULL)",
            made,
        )
        connection.execute(
            "INSERT INTO orders VALUES (%(order)s, %(tenant)s, %(user)s, %(event)s, 'PAID', 500, "
            "NULL, 'EUR', 1, %(at)s, %(at)s)",
            made,
        )
    with platform.jobs() as connection:
        report = check_source(connection)
    assert (report.faults, report.warnings) == ([], [])
    assert report.time_zones == {"Europe/Berlin": 1}


def test_the_command_exits_0_with_warnings(simple: Database) -> None:
    look(simple, order(1, total_amount="-1"))
    done = command_line(simple)
    assert done.returncode == 0, done.stderr
    assert "of a negative amount" in done.stdout
    assert "The source keeps the contract: 0 faults, 1 warning." in done.stdout


def test_the_command_exits_1_with_a_fault_and_shows_no_traceback(simple: Database) -> None:
    look(simple, "DROP VIEW source.scans")
    done = command_line(simple)
    assert done.returncode == 1
    assert "source.scans is missing" in done.stdout
    assert "The source breaks the contract: 1 fault, 0 warnings." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_error_of_a_database_that_was_never_migrated_shows_what_to_do(
    new_database: NewDatabase,
) -> None:
    database = new_database(None)
    done = command_line(database)
    assert done.returncode == 1
    assert "run `python -m venue_analytics migrate --adapter" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_missing_connection_is_reported_without_a_traceback() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_CONN_")}
    done = subprocess.run(
        [sys.executable, "-m", "venue_analytics", "check-source"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "AIRFLOW_CONN_ANALYTICS_DB" in done.stderr
    assert "Traceback" not in done.stderr
