"""Every .sql file runs on a real server, and filters by tenant in its own text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID, uuid5

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from tests.databases import Database

import venue_analytics
from venue_analytics.database.connection import connect
from venue_analytics.database.contract import VIEWS
from venue_analytics.demo.platform import load_platform

PACKAGE = Path(venue_analytics.__file__).parent
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.sql"))
STATEMENTS = [name for name in FILES if Path(name).parent.name == "sql"]
#: Scripts of many statements, run by what is named here.
SCRIPTS = {
    "database/adapters/csv.sql": "migrate",
    "database/adapters/platform.sql": "migrate",
    "database/adapters/simple.sql": "migrate",
    "database/migrations/versions/0001_baseline.sql": "migrate",
    "database/roles.sql": "migrate",
    "demo/platform_access.sql": "load_platform",
    "demo/platform_counts.sql": "load_platform",
    "demo/platform_programme.sql": "load_platform",
    "demo/platform_sales.sql": "load_platform",
    "demo/platform_schema.sql": "load_platform",
}


pytestmark = pytest.mark.both_versions
RUN_BY_THE_OWNER = {"database/sql/set_adapter.sql"}


def uid(name: str) -> UUID:
    return uuid5(UUID(int=0), name)


TENANT, OTHER = uid("tenant"), uid("other tenant")
VENUE, OTHERS_VENUE = uid("venue"), uid("the other tenant's venue")
AS_OF = datetime(2024, 7, 1, tzinfo=UTC)

#: A plausible value for every parameter; a new parameter is to be given one here.
VALUES: dict[str, Any] = {
    "as_of": AS_OF,
    "batch": 0,
    "alone": True,
    "clear_number": 0,
    "codes": [1, 2, 3, 4],
    "currencies": ["USD"],
    "currency": "USD",
    "cursor": None,
    "customers": 10,
    "dataset": "orders.csv",
    "deployment": uid("deployment"),
    "dry_run": False,
    "ended": False,
    "ended_by": "ada",
    "ends": Jsonb([{"id": 1, "venue_id": str(VENUE), "outcome": "succeeded"}]),
    "error": "no such seat",
    "error_type": "ValueError",
    "force": False,
    "frequency": [2, 4, 7, 10],
    "gone": [False],
    "high_risk_min_purchases": 3,
    "host": "host",
    "id": 1,
    "ids": [1],
    "is_common": False,
    "job": "rfm_scoring",
    "keeps_every_date": False,
    "key": "sale 7",
    "kind": "item",
    "label": "Hall",
    "left_behind": Jsonb([]),
    "letter": 1,
    "limit_ms": None,
    "low_risk": AS_OF,
    "medium_risk_min_purchases": 2,
    "monetary": [80, 60, 40, 20],
    "name": "simple",
    "names": ["Hall"],
    "not_high_risk": AS_OF,
    "not_long_gone": AS_OF,
    "number": 0,
    "outcome": "succeeded",
    "payload": Jsonb({}),
    "permanent": False,
    "plan_number": 1,
    "plan_numbers": [1],
    "plan_try": 1,
    "reason": "sold",
    "round": 1,
    "recency": [AS_OF] * 4,
    "rows": 10,
    "rules": Jsonb({}),
    "rules_hash": "0" * 16,
    "rules_hashes": ["0" * 16],
    "run": 1,
    "run_id": "manual",
    "segments": [1 + number % 4 for number in range(250)],
    "settings": Jsonb({}),
    "since": None,
    "source_faults": Jsonb([]),
    "started_at": [AS_OF],
    "step": 1,
    "tenant_id": TENANT,
    "tenant_ids": [TENANT],
    "tenants": [TENANT],
    "timezone": "UTC",
    "token": 1,
    "tokens": [1],
    "traceback": None,
    "try_number": 1,
    "venue_id": VENUE,
    "venue_ids": [VENUE],
    "venue_name": "Hall",
    "venues": Jsonb([]),
    "view": "orders",
}


def text_of(name: str) -> LiteralString:
    return (PACKAGE / name).read_text(encoding="utf-8")


def parameters_of(name: str) -> set[str]:
    return set(re.findall(r"%\((\w+)\)s", text_of(name)))


def values_for(name: str) -> dict[str, Any]:
    """Give the parameters of a file; one that has no value here fails the test."""
    missing = parameters_of(name) - VALUES.keys()
    assert not missing, f"{name}: give {', '.join(sorted(missing))} a plausible value in VALUES"
    return {parameter: VALUES[parameter] for parameter in parameters_of(name)}


def begun(connection: psycopg.Connection, name: str) -> dict[str, Any]:
    """Begin a night: a run with an item set aside, a token drawn; give a file's parameters."""

    def first(before: str, **values: Any) -> Any:
        row = connection.execute(text_of(before), values_for(before) | values).fetchone()
        assert row is not None
        return row[0]

    run = first("harness/sql/store_run.sql", plan_try=2)
    letter = first("harness/sql/write_letter.sql", run=run)
    first("harness/sql/draw_tokens.sql")
    values = values_for(name)
    return values | {key: of for key, of in (("run", run), ("letter", letter)) if key in values}


@contextmanager
def rolled_back(connection: psycopg.Connection) -> Iterator[None]:
    """Run a block in a transaction of the tenant that leaves no trace."""
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT set_config('app.current_tenant_id', %s, TRUE)", [str(TENANT)])
        yield


def test_there_are_statements() -> None:
    assert len(STATEMENTS) > 30


def test_every_file_is_a_statement_or_a_script_that_is_run_by_name() -> None:
    assert set(FILES) - set(STATEMENTS) == set(SCRIPTS)


@pytest.mark.parametrize("name", FILES)
def test_a_file_opens_by_saying_what_it_is(name: str) -> None:
    first = text_of(name).splitlines()[0]
    pattern = r"-- (One row|No rows|At most one row)\b.*: |-- One row a |-- \S.*"
    assert re.match(pattern, first), first
    if name in STATEMENTS:
        assert re.match(r"-- (One row|No rows|At most one row)", first), first


@pytest.mark.parametrize("name", FILES)
def test_a_file_takes_its_values_bound(name: str) -> None:
    # what is left of % after the bound parameters is the operator, doubled or not, or a LIKE
    text = re.sub(r"%\(\w+\)s|%%", "", text_of(name))
    assert not re.search(r"%[sdbt]\b|\{\w*\}(?!')", text)


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_runs_with_its_roles_rights(
    shared_database: Callable[[str], Database], name: str
) -> None:
    of_csv = name.startswith("database/purchases/")
    role = "analytics_owner" if name in RUN_BY_THE_OWNER else "analytics_jobs"
    address = shared_database("csv" if of_csv else "platform").address(role)
    with (
        connect(address, role=role) as connection,
        rolled_back(connection),
        connection.cursor() as cursor,
    ):
        values = values_for(name)
        if of_csv:
            cursor.execute(text_of("database/purchases/sql/stage_orders.sql"))
        elif name.startswith("harness/"):
            values = begun(connection, name)
        if name.endswith("copy_orders.sql"):
            with cursor.copy(text_of(name)) as copy:
                copy.write("")
            assert cursor.rowcount == 0
        else:
            cursor.execute(text_of(name), values)


def test_the_demos_scripts_run(new_database: Callable[[str | None], Database]) -> None:
    database = new_database(None)
    until = datetime(2024, 7, 1, tzinfo=UTC)
    summary = load_platform(database.uri("analytics_owner"), until=until, scale=0.01)
    assert summary.orders > 0


# another tenant's rows behind every query --------------------------------------------------

#: They only write the tenant that they are given, where no row of another can stand.
ONLY_WRITES_ITS_TENANT = {
    "harness/sql/enter.sql",
    "harness/sql/store_payload.sql",
    "harness/sql/write_letter.sql",
    "jobs/rfm_scoring/sql/claim_venues.sql",
    # files have one owner: the tables hold one tenant
    "database/purchases/sql/insert_customers.sql",
    "database/purchases/sql/insert_orders.sql",
    "database/purchases/sql/upsert_venues.sql",
}
OF_A_TENANT = [
    name
    for name in STATEMENTS
    if "tenant_id" in parameters_of(name) and name not in ONLY_WRITES_ITS_TENANT
]
STATE_TABLES = (
    "customer_rfm_state",
    "venue_rfm_state",
    "customer_segments",
    "customer_segment_change",
    "venue_rfm_rules",
)

SCORE = "jobs/rfm_scoring/sql/score.sql"

EVENT, OTHERS_EVENT = uid("event"), uid("the other tenant's event")
ANNA, BEN, CLEO = uid("anna"), uid("ben"), uid("cleo")
YESTERDAY = AS_OF - timedelta(days=1)


def order(
    name: str, tenant: UUID, customer: UUID, *, event: UUID = EVENT, venue: UUID = VENUE
) -> dict[str, Any]:
    return {
        "order_id": uid(name),
        "tenant_id": tenant,
        "venue_id": venue,
        "event_id": event,
        "customer_id": customer,
        "ordered_at": YESTERDAY,
        "status": "paid",
        "is_sale": True,
        "amount_cents": 1000,
        "currency": "USD" if tenant == TENANT else "EUR",
    }


def refund(name: str, tenant: UUID, of_order: str, cents: int) -> dict[str, Any]:
    return {
        "refund_id": uid(name),
        "order_id": uid(of_order),
        "tenant_id": tenant,
        "venue_id": VENUE,
        "refunded_at": YESTERDAY,
        "amount_cents": cents,
    }


def scan(name: str, tenant: UUID, event: UUID) -> dict[str, Any]:
    return {"scan_id": uid(name), "tenant_id": tenant, "event_id": event}


OWN: dict[str, list[dict[str, Any]]] = {
    "venues": [{"venue_id": VENUE, "tenant_id": TENANT, "name": "Hall", "open": True}],
    "events": [
        {"event_id": EVENT, "venue_id": VENUE, "tenant_id": TENANT},
        {"event_id": uid("guest event"), "venue_id": OTHERS_VENUE, "tenant_id": TENANT},
    ],
    "customers": [
        {
            "customer_id": ANNA,
            "tenant_id": TENANT,
            "external_id": "anna",
            "deleted": False,
            "erased": False,
        }
    ],
    "orders": [
        order("of anna", TENANT, ANNA),
        order("of a stranger", TENANT, BEN),
        order("for a strange event", TENANT, ANNA, event=OTHERS_EVENT),
        order("at a strange venue", TENANT, ANNA, venue=OTHERS_VENUE),
    ],
    "refunds": [
        refund("own", TENANT, "of anna", 3),
        refund("of a strange order", TENANT, "the other's of anna", 3),
    ],
    "scans": [scan("own", TENANT, EVENT), scan("at a strange event", TENANT, OTHERS_EVENT)],
    "freshness": [{"tenant_id": TENANT, "loaded_through": AS_OF}],
}
#: The same things under the other tenant; what an own row names and the tenant must not find.
PLANTED: dict[str, list[dict[str, Any]]] = {
    "venues": [{"venue_id": OTHERS_VENUE, "tenant_id": OTHER, "name": "Club", "open": True}],
    "events": [{"event_id": OTHERS_EVENT, "venue_id": VENUE, "tenant_id": OTHER}],
    "customers": [
        {
            "customer_id": who,
            "tenant_id": OTHER,
            "external_id": "not yours",
            "deleted": who == ANNA,
            "erased": who == ANNA,
        }
        for who in (ANNA, BEN, CLEO)
    ],
    "orders": [
        order("the other's of anna", OTHER, ANNA),
        *(order(f"the other's {n}", OTHER, CLEO, event=OTHERS_EVENT) for n in range(9)),
    ],
    "refunds": [refund("planted", OTHER, "of anna", 7)],
    "scans": [scan("planted", OTHER, EVENT)],
    "freshness": [{"tenant_id": OTHER, "loaded_through": YESTERDAY}],
}


def insert(connection: psycopg.Connection, schema: str, table: str, row: dict[str, Any]) -> None:
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(schema, table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        ),
        row,
    )


def hold(connection: psycopg.Connection, tenant: UUID, customer: UUID, segment: str) -> None:
    """Store scores of a customer at the venue, and a segment of the venue, for a tenant."""
    customer_row: dict[str, Any] = {
        "first_purchase_at": YESTERDAY,
        "last_purchase_at": YESTERDAY,
        "created_at": YESTERDAY,
        "spent_cents": 1,
        "purchases": 1,
        "recency_score": 1,
        "frequency_score": 1,
        "monetary_score": 1,
        "segment": 1,
        "churn_risk": 1,
        "known": True,
    }
    change_row: dict[str, Any] = {"as_of": AS_OF, "segment": 1, "spent_cents": 1, "by_rules": False}
    rules_row: dict[str, Any] = {"rules_hash": "hash", "rules": Jsonb({})}
    segment_row: dict[str, Any] = {
        "customer_count": 1,
        "total_revenue": 1,
        "avg_order_value": 1,
        "avg_lifetime_value": 1,
        "avg_purchase_frequency": 1,
        "last_calculated_at": YESTERDAY,
    }
    key = {"venue_id": VENUE, "tenant_id": tenant}
    insert(
        connection, "public", "customer_rfm_state", key | {"customer_id": customer} | customer_row
    )
    insert(connection, "public", "customer_segments", key | {"segment_name": segment} | segment_row)
    insert(
        connection,
        "public",
        "customer_segment_change",
        key | {"customer_id": customer} | change_row,
    )
    since = YESTERDAY if tenant == TENANT else YESTERDAY - timedelta(hours=1)
    insert(connection, "public", "venue_rfm_rules", key | {"since": since} | rules_row)


def hold_venue(connection: psycopg.Connection, venue: UUID, tenant: UUID) -> None:
    row = {"venue_id": venue, "tenant_id": tenant, "as_of": YESTERDAY, "main_currency": "USD"}
    insert(connection, "public", "venue_rfm_state", row)


def held_by(connection: psycopg.Connection, tenant: UUID) -> dict[str, list[Any]]:
    return {
        table: connection.execute(
            sql.SQL("SELECT * FROM public.{} WHERE tenant_id = %s ORDER BY 1, 2, 3").format(
                sql.Identifier(table)
            ),
            [tenant],
        ).fetchall()
        for table in STATE_TABLES
    }


def seen(
    connection: psycopg.Connection, name: str, *, planted: bool, holder: UUID, **others: Any
) -> tuple[Any, int, dict[str, list[Any]]]:
    """Run a file past row-level security; give its answer and what the tenant then holds.

    The contract's views are replaced by tables, so that no adapter's joins can hide what the
    file itself does not filter.
    """
    with rolled_back(connection):
        for view in VIEWS:
            columns = ", ".join(f"{column} {kind}" for column, kind in view.columns.items())
            connection.execute(f"DROP VIEW source.{view.name}")
            connection.execute(f"CREATE TABLE source.{view.name} ({columns})")
            rows = OWN[view.name] + (PLANTED[view.name] if planted else [])
            for row in rows:
                insert(connection, "source", view.name, row)
        if holder == TENANT:
            hold(connection, TENANT, ANNA, "VIP")
            hold_venue(connection, VENUE, TENANT)
        if planted:
            hold(connection, OTHER, CLEO, "the other's")
            hold_venue(connection, OTHERS_VENUE, OTHER)
            if holder == OTHER:
                hold_venue(connection, VENUE, OTHER)
        values = begun(connection, name) | others
        if "letter" in values:
            for tenant in (TENANT, OTHER) if planted else (TENANT,):
                row = {"letter": values["letter"], "tenant_id": tenant}
                payload = {"payload": Jsonb({"of": str(tenant)})}
                insert(connection, "jobs", "dead_letter_payload", row | payload)
        others_before = held_by(connection, OTHER)
        cursor = connection.execute(text_of(name), values)
        answer = sorted(map(repr, cursor.fetchall())) if cursor.description else None
        affected = cursor.rowcount
        assert held_by(connection, OTHER) == others_before
        return answer, affected, held_by(connection, TENANT)


def test_some_files_take_a_tenant() -> None:
    assert len(OF_A_TENANT) > 10
    assert set(STATEMENTS) >= ONLY_WRITES_ITS_TENANT


@pytest.mark.parametrize("name", OF_A_TENANT)
@pytest.mark.parametrize("holder", [TENANT, OTHER], ids=["own_scores", "the_others_scores"])
def test_a_files_own_text_keeps_another_tenants_rows_out(
    shared_database: Callable[[str], Database], name: str, holder: UUID
) -> None:
    with shared_database("platform").superuser() as connection:
        alone = seen(connection, name, planted=False, holder=holder)
        beside_another = seen(connection, name, planted=True, holder=holder)
    assert beside_another == alone
