"""Every .sql file runs on a real server, and its own text filters by tenant."""

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
from tests.jobs.facts import AS_OF, TENANT, VENUE, facts_of

import venue_analytics
from venue_analytics.database.connection import connect
from venue_analytics.database.contract import VIEWS
from venue_analytics.demo.platform import load_platform
from venue_analytics.harness.unit import UnitKind
from venue_analytics.jobs import JOBS

PACKAGE = Path(venue_analytics.__file__).parent
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.sql"))
STATEMENTS = [name for name in FILES if Path(name).parent.name == "sql"]
#: Scripts of many statements, and what runs them.
SCRIPTS = {
    "database/adapters/csv.sql": "migrate",
    "database/adapters/platform.sql": "migrate",
    "database/adapters/simple.sql": "migrate",
    "database/roles.sql": "migrate",
    "demo/platform_access.sql": "load_platform",
    "demo/platform_counts.sql": "load_platform",
    "demo/platform_programme.sql": "load_platform",
    "demo/platform_sales.sql": "load_platform",
    "demo/platform_schema.sql": "load_platform",
}
MIGRATIONS = {name for name in FILES if name.startswith("database/migrations/versions/")}

pytestmark = pytest.mark.both_versions
RUN_BY_THE_OWNER = {"database/sql/set_adapter.sql"}


def uid(name: str) -> UUID:
    return uuid5(UUID(int=0), name)


OTHER, OTHERS_VENUE = uid("other tenant"), uid("the other tenant's venue")

#: A plausible value for every parameter; those of a job's own statements are in its facts.
VALUES: dict[str, Any] = {
    "as_of": AS_OF,
    "batch": 0,
    "alone": True,
    "clear_number": 0,
    "currency": "USD",
    "cursor": None,
    "dataset": "orders.csv",
    "deployment": uid("deployment"),
    "done": ["score"],
    "discarded": True,
    "dry_run": False,
    "ended": False,
    "ended_by": "ada",
    "ends": Jsonb([{"id": 1, "unit_id": str(VENUE), "outcome": "succeeded"}]),
    "error": "no such seat",
    "error_type": "ValueError",
    "for_plan": 1,
    "force": False,
    "gone": [False],
    "host": "host",
    "id": 1,
    "ids": [1],
    "is_common": False,
    "job": "rfm_scoring",
    "keeps_every_date": False,
    "key": "sale 7",
    "keys": ["sale 7"],
    "kind": "item",
    "label": "Hall",
    "left_behind": Jsonb([]),
    "letter": 1,
    "limit_ms": None,
    "name": "simple",
    "names": ["Hall"],
    "number": 0,
    "outcome": "succeeded",
    "payload": Jsonb({}),
    "permanent": False,
    "parameters": Jsonb({}),
    "plan_try": 1,
    "plans": [1],
    "reason": "sold",
    "round": 1,
    "rows": 10,
    "rules_hash": "0" * 16,
    "rules_hashes": ["0" * 16],
    "run": 1,
    "run_id": "manual",
    "settings": Jsonb({}),
    "source_faults": Jsonb([]),
    "started_at": [AS_OF],
    "state": "unknown",
    "step": "score",
    "tenant_id": TENANT,
    "tenant_ids": [TENANT],
    "tenants": [TENANT],
    "timezone": "UTC",
    "token": 1,
    "tokens": [1],
    "traceback": None,
    "try_number": 1,
    "unit_id": VENUE,
    "unit_ids": [VENUE],
    "unit_name": "Hall",
    "units": Jsonb([]),
    "view": "orders",
}


def text_of(name: str) -> LiteralString:
    return (PACKAGE / name).read_text(encoding="utf-8")


def parameters_of(name: str) -> set[str]:
    return set(re.findall(r"%\((\w+)\)s", text_of(name)))


def job_of(name: str) -> str | None:
    """Return the job that a file belongs to."""
    folder, _, rest = name.partition("/")
    return rest.partition("/")[0] if folder == "jobs" else None


def values_for(name: str) -> dict[str, Any]:
    """Return the parameters of a file; fail the test if one has no value."""
    job = job_of(name)
    values = VALUES if job is None else VALUES | dict(facts_of(job).sql_values)
    missing = ", ".join(sorted(parameters_of(name) - values.keys()))
    place = "VALUES" if job is None else f"sql_values of tests/jobs/{job}/facts.py"
    assert not missing, f"{name}: add a plausible value for {missing} to {place}"
    return {parameter: values[parameter] for parameter in parameters_of(name)}


def begun(connection: psycopg.Connection, name: str) -> dict[str, Any]:
    """Begin a night: store a run and a letter, and draw a token; return a file's parameters."""

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
    """Run a block in a transaction of the tenant, and roll it back."""
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT set_config('app.current_tenant_id', %s, TRUE)", [str(TENANT)])
        yield


def test_there_are_statements() -> None:
    assert len(STATEMENTS) > 30


def test_every_file_is_a_statement_a_migration_or_a_known_script() -> None:
    assert set(FILES) - set(STATEMENTS) == SCRIPTS.keys() | MIGRATIONS
    assert all((PACKAGE / name).with_suffix(".py").is_file() for name in MIGRATIONS)


@pytest.mark.parametrize("name", FILES)
def test_a_file_begins_with_a_comment_that_describes_it(name: str) -> None:
    first = text_of(name).splitlines()[0]
    pattern = r"-- (One row|No rows|At most one row)\b.*: |-- One row a |-- \S.*"
    assert re.match(pattern, first), first
    if name in STATEMENTS:
        assert re.match(r"-- (One row|No rows|At most one row)", first), first


@pytest.mark.parametrize("name", FILES)
def test_a_file_takes_its_values_as_bound_parameters(name: str) -> None:
    # any % besides the bound parameters is the operator, doubled or not, or part of a LIKE
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


# no query returns another tenant's rows ----------------------------------------------------

#: These only write the given tenant, where they cannot meet a row of another.
ONLY_WRITES_ITS_TENANT = {
    "harness/sql/enter.sql",
    "harness/sql/store_payload.sql",
    "harness/sql/write_letter.sql",
    *(
        f"jobs/{job}/sql/{statement}.sql"
        for job in JOBS
        for statement in facts_of(job).only_writes_its_tenant
    ),
    # the tables of loaded files hold a single tenant
    "database/purchases/sql/insert_customers.sql",
    "database/purchases/sql/insert_orders.sql",
    "database/purchases/sql/upsert_venues.sql",
}
OF_A_TENANT = [
    name
    for name in STATEMENTS
    if "tenant_id" in parameters_of(name) and name not in ONLY_WRITES_ITS_TENANT
]
#: Each job and each of its tables.
KEPT = [(job, table) for job in JOBS for table in facts_of(job).tables]

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
#: The same rows of the other tenant, which the tenant's own rows reference but must not find.
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


def hold(connection: psycopg.Connection, tenant: UUID, venues: list[UUID], inside: UUID) -> None:
    """Store a row of each table of every job for a tenant.

    All rows are for the same venue, whichever tenant it belongs to. Tables with one row per unit
    get one for each of the venues.
    """
    for job in JOBS:
        facts = facts_of(job)
        is_by_venue = JOBS[job].unit is UnitKind.VENUE
        for unit in venues if is_by_venue else [tenant]:
            for table in facts.of_unit:
                insert(connection, "public", table, facts.rows(tenant, unit, inside)[table])
        for table, row in facts.rows(tenant, VENUE if is_by_venue else tenant, inside).items():
            if table not in facts.of_unit:
                insert(connection, "public", table, row)


def held_by(connection: psycopg.Connection, tenant: UUID) -> dict[str, list[Any]]:
    """Return the rows of every job's tables for a tenant."""
    return {
        f"{job}: {table}": connection.execute(
            sql.SQL("SELECT * FROM public.{} AS t WHERE tenant_id = %s ORDER BY t::text").format(
                sql.Identifier(table)
            ),
            [tenant],
        ).fetchall()
        for job, table in KEPT
    }


def seen(
    connection: psycopg.Connection, name: str, *, planted: bool, holder: UUID, **others: Any
) -> tuple[Any, int, dict[str, list[Any]]]:
    """Run a file without row-level security; return its answer and the tenant's rows after it.

    The contract's views are replaced by tables, so that an adapter's joins cannot hide that the
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
            hold(connection, TENANT, [VENUE], ANNA)
        if planted:
            others_units = [OTHERS_VENUE, *([VENUE] if holder == OTHER else [])]
            hold(connection, OTHER, others_units, CLEO)
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
@pytest.mark.parametrize("holder", [TENANT, OTHER], ids=["own_results", "the_others_results"])
def test_the_text_of_a_file_filters_out_another_tenants_rows(
    shared_database: Callable[[str], Database], name: str, holder: UUID
) -> None:
    with shared_database("platform").superuser() as connection:
        alone = seen(connection, name, planted=False, holder=holder)
        beside_another = seen(connection, name, planted=True, holder=holder)
    assert beside_another == alone
