"""Migrations: what they create, what they refuse, and what each role may do afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from tests.databases import PLATFORM_TABLES, SIMPLE_TABLES, Database
from tests.jobs.facts import facts_of

from venue_analytics.database.connection import DatabaseAddress
from venue_analytics.database.migrate import MigrationError, migrate
from venue_analytics.demo.servers import PostgresServer
from venue_analytics.harness.tenant import tenant_transaction
from venue_analytics.harness.unit import UnitKind
from venue_analytics.jobs import JOBS

TONIGHT = datetime(2026, 3, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
OUR_AIRFLOW = UUID(int=1)
pytestmark = pytest.mark.both_versions
NewDatabase = Callable[[str | None], Database]
OURS = ("public", "jobs", "source", "csv")
#: The project's own tables, without those of the source (the platform's or `simple`'s).
OUR_TABLES = """
SELECT n.nspname || '.' || c.relname
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY(%s) AND c.relkind = ANY(%s)
AND pg_get_userbyid(c.relowner) = 'analytics_owner'
ORDER BY 1
"""
of_every_job = pytest.mark.parametrize("job", JOBS)


def targets_of(job: str) -> tuple[str, ...]:
    """Return the tables and views that a job's migrations create in schema public."""
    return (*facts_of(job).tables, *facts_of(job).views)


def names(database: Database, kinds: str = "rv") -> set[str]:
    """Return the project's own tables (r) and views (v)."""
    with database.superuser() as connection:
        rows = connection.execute(OUR_TABLES, [list(OURS), list(kinds)]).fetchall()
    return {name for (name,) in rows}


def catalogue(database: Database) -> list[tuple[Any, ...]]:
    """Return all relations and schemas, with what distinguishes a new one from an old one."""
    with database.superuser() as connection:
        return connection.execute(
            "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relfilenode::text "
            "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') "
            "UNION ALL SELECT nspname, '', 'n', '' FROM pg_namespace "
            "WHERE nspname NOT LIKE 'pg_%' ORDER BY 1, 2, 3"
        ).fetchall()


def with_tables(database: Database, tables: str) -> Database:
    with psycopg.connect(database.uri("analytics_owner")) as connection:
        connection.execute(tables)
    return database


def owner(database: Database) -> DatabaseAddress:
    return database.address("analytics_owner")


def test_an_empty_database_gets_every_table_and_view(new_database: NewDatabase) -> None:
    database = new_database(None)
    done = migrate(owner(database), adapter="csv")
    assert (done.from_revision, done.adapter) == (None, "csv")
    found = names(database)
    assert found >= {"jobs.run", "jobs.batch", "jobs.unit_run"}
    targets = {f"public.{name}" for job in JOBS for name in targets_of(job)}
    assert {name for name in found if name.startswith("public.")} == targets


def test_the_platforms_tables_are_not_changed(new_database: NewDatabase) -> None:
    database = with_tables(new_database(None), PLATFORM_TABLES)
    before = catalogue(database)
    assert migrate(owner(database)).adapter == "platform"
    assert set(before) <= set(catalogue(database))


@pytest.mark.parametrize("adapter", ["simple", "platform", "csv"])
def test_a_second_migration_changes_no_table(new_database: NewDatabase, adapter: str) -> None:
    database = new_database(adapter)
    before = catalogue(database)
    done = migrate(owner(database))
    assert done.from_revision == done.to_revision
    assert done.adapter == adapter
    assert catalogue(database) == before


def test_the_currency_is_kept_until_another_is_given(new_database: NewDatabase) -> None:
    database = new_database("simple")
    migrate(owner(database), currency="EUR")
    migrate(owner(database))
    with database.superuser() as connection:
        assert connection.execute("SELECT currency FROM source.adapter").fetchone() == ("EUR",)


@pytest.mark.parametrize("currency", ["eur", "EURO", ""])
def test_a_currency_that_is_not_a_code_is_refused(simple: Database, currency: str) -> None:
    with pytest.raises(MigrationError, match=r"must be an ISO 4217 code"):
        migrate(owner(simple), currency=currency)


@of_every_job
def test_a_relation_in_the_way_of_a_jobs_targets_is_named_and_not_touched(
    new_database: NewDatabase, job: str
) -> None:
    targets = targets_of(job)
    tables = "".join(f"CREATE TABLE {name} AS SELECT 7 AS theirs;" for name in targets)
    database = with_tables(new_database(None), SIMPLE_TABLES + tables)
    left = set(targets)
    with database.superuser() as connection:
        while left:
            before = catalogue(database)
            with pytest.raises(MigrationError, match="not made by these migrations: ") as raised:
                migrate(owner(database), adapter="simple")
            assert catalogue(database) == before
            # a later migration of the job reports its own conflicts once the earlier ones are gone
            named = set(re.findall(r"\bpublic\.(\w+)", str(raised.value)))
            assert named
            assert named <= left
            for name in named:
                table = sql.Identifier(name)
                found = connection.execute(sql.SQL("SELECT * FROM {}").format(table))
                assert found.fetchall() == [(7,)]
                connection.execute(sql.SQL("DROP TABLE {}").format(table))
            left -= named
    assert migrate(owner(database), adapter="simple").from_revision is None


@pytest.mark.parametrize("schema", ["jobs", "source"])
def test_a_schema_of_another_application_is_refused(new_database: NewDatabase, schema: str) -> None:
    database = with_tables(new_database(None), SIMPLE_TABLES)
    with database.superuser() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    before = catalogue(database)
    with pytest.raises(MigrationError, match=rf"schema {schema} already exists and belongs to"):
        migrate(owner(database), adapter="simple")
    assert catalogue(database) == before


def test_an_unknown_adapter_is_refused_and_nothing_is_created(new_database: NewDatabase) -> None:
    database = new_database(None)
    before = catalogue(database)
    with pytest.raises(MigrationError, match=r"'simpel': must be platform, simple, csv, or"):
        migrate(owner(database), adapter="simpel")
    assert catalogue(database) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP TABLE users", r'relation "public.users" does not exist'),
        ("ALTER TABLE orders DROP COLUMN total_amount", r"total_amount does not exist"),
        ("ALTER TABLE orders ALTER COLUMN venue_id TYPE integer USING 1", r"cannot cast type"),
    ],
)
def test_source_tables_that_do_not_fit_are_reported_and_nothing_is_created(
    new_database: NewDatabase, change: str, words: str
) -> None:
    database = with_tables(new_database(None), SIMPLE_TABLES + change)
    before = catalogue(database)
    with pytest.raises(MigrationError, match=words) as raised:
        migrate(owner(database), adapter="simple")
    assert "adapter simple does not fit this database" in str(raised.value)
    assert catalogue(database) == before


def test_the_error_of_a_login_without_rights_lists_what_it_needs(new_database: NewDatabase) -> None:
    database = with_tables(new_database(None), SIMPLE_TABLES)
    login = f"stranger_{uuid4().hex[:8]}"
    with database.superuser() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(login)))
        before = catalogue(database)
        try:
            with pytest.raises(MigrationError, match=r"GRANT analytics_owner to the login"):
                migrate(database.address(login), adapter="simple")
            assert catalogue(database) == before
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(login)))


def test_a_login_that_may_only_create_roles_can_migrate_its_own_database() -> None:
    with (
        TemporaryDirectory(prefix="venue-analytics-tests-") as directory,
        PostgresServer(Path(directory) / "postgres") as server,
    ):
        with psycopg.connect(server.superuser_uri(), autocommit=True) as connection:
            connection.execute("CREATE ROLE dba LOGIN CREATEROLE")
            connection.execute("CREATE DATABASE shop OWNER dba")
        address = DatabaseAddress.parse(server.uri("shop", "dba"), name="the dba's address")
        assert migrate(address, adapter="csv").adapter == "csv"


@pytest.mark.parametrize("schema", ["public", "jobs", "source", "csv"])
def test_tables_migrated_by_a_superuser_belong_to_the_owner(
    new_database: NewDatabase, schema: str
) -> None:
    database = new_database(None)
    address = DatabaseAddress.parse(
        database.server.superuser_uri(database.name), name="the superuser's address"
    )
    migrate(address, adapter="csv")
    with database.superuser() as connection:
        owners = connection.execute(
            "SELECT DISTINCT pg_get_userbyid(c.relowner)::text FROM pg_class AS c "
            "WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'v', 'S')",
            [schema],
        ).fetchall()
    assert owners == [("analytics_owner",)]


def test_the_owner_may_migrate_again_after_a_superuser(new_database: NewDatabase) -> None:
    database = new_database(None)
    address = DatabaseAddress.parse(
        database.server.superuser_uri(database.name), name="the superuser's address"
    )
    first = migrate(address, adapter="csv")
    assert migrate(owner(database)).to_revision == first.to_revision


# rights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["simple", "platform", "csv"])
def test_every_own_table_has_forced_row_level_security(
    new_database: NewDatabase, adapter: str
) -> None:
    database = new_database(adapter)
    with database.superuser() as connection:
        open_to_all = connection.execute(
            "SELECT n.nspname || '.' || c.relname FROM pg_class AS c "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = ANY(%s) AND c.relkind = 'r' "
            "AND NOT (c.relrowsecurity AND c.relforcerowsecurity) ORDER BY 1",
            [list(OURS)],
        ).fetchall()
    sources = {
        "simple": {"orders", "users", "venues"},
        "platform": set(_tables_of(PLATFORM_TABLES)),
        "csv": set(),
    }[adapter]
    known = {f"public.{name}" for name in sources} | {"jobs.alembic_version"}
    assert {name for (name,) in open_to_all} <= known


def _tables_of(script: str) -> list[str]:
    return [line.split()[2] for line in script.splitlines() if line.startswith("CREATE TABLE ")]


@pytest.mark.parametrize("adapter", ["simple", "platform", "csv"])
def test_every_own_view_reads_with_its_readers_rights(
    new_database: NewDatabase, adapter: str
) -> None:
    database = new_database(adapter)
    with database.superuser() as connection:
        views = connection.execute(
            "SELECT n.nspname || '.' || c.relname, coalesce(c.reloptions::text, '') "
            "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = ANY(%s) AND c.relkind = 'v'",
            [list(OURS)],
        ).fetchall()
    assert len(views) > 10
    lax = {name for name, options in views if "security_invoker=true" not in options}
    assert lax == set()


def test_no_role_bypasses_row_level_security(simple: Database) -> None:
    with simple.superuser() as connection:
        mighty = connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'analytics\\_%' "
            "AND (rolbypassrls OR rolsuper)"
        ).fetchall()
        # membership would grant what the lister sees
        lent = connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname IN ('analytics_jobs', 'analytics_reader') "
            "AND (pg_has_role(oid, 'analytics_lister', 'MEMBER') "
            "OR pg_has_role(oid, 'analytics_owner', 'MEMBER'))"
        ).fetchall()
    assert (mighty, lent) == ([], [])


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("analytics_reader", "SELECT FROM jobs.run"),
        ("analytics_reader", "SELECT FROM jobs.unit_run"),
        ("analytics_reader", "SELECT FROM jobs.batch"),
        ("analytics_reader", "SELECT FROM jobs.fence"),
        ("analytics_reader", "SELECT FROM jobs.checkpoint"),
        ("analytics_reader", "SELECT FROM jobs.action"),
        ("analytics_reader", "SELECT FROM jobs.plan"),
        ("analytics_reader", "SELECT FROM jobs.dead_letter"),
        ("analytics_reader", "SELECT FROM jobs.dead_letter_payload"),
        (
            "analytics_reader",
            "SELECT jobs.enter('rfm_scoring', gen_random_uuid(), '{}', '{}', NULL)",
        ),
        ("analytics_reader", "SELECT FROM source.orders"),
        ("analytics_reader", "SELECT FROM source.customers"),
        ("analytics_reader", "SELECT FROM jobs.list_venues()"),
        ("analytics_reader", "SELECT jobs.forget_successes('rfm_scoring', 1)"),
        ("analytics_jobs", "DELETE FROM jobs.run"),
        ("analytics_jobs", "DELETE FROM jobs.unit_run"),
        ("analytics_jobs", "DELETE FROM jobs.batch"),
        # a token must never be issued twice
        ("analytics_jobs", "DELETE FROM jobs.fence"),
        ("analytics_jobs", "TRUNCATE jobs.fence"),
        ("analytics_jobs", "DELETE FROM jobs.dead_letter"),
        ("analytics_jobs", "UPDATE orders SET status = 'completed'"),
        ("analytics_jobs", "DELETE FROM users"),
        ("analytics_jobs", "UPDATE source.adapter SET currency = 'EUR'"),
        ("analytics_jobs", "CREATE TABLE jobs.own (id integer)"),
        ("analytics_jobs", "CREATE TABLE public.own (id integer)"),
        ("analytics_jobs", "SET ROLE analytics_lister"),
    ],
)
def test_a_role_has_no_unneeded_rights(simple: Database, role: str, statement: str) -> None:
    with psycopg.connect(simple.uri(role)) as connection:
        connection.execute("SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(uuid4())])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


@of_every_job
@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("analytics_reader", "DELETE FROM {}"),
        ("analytics_reader", "UPDATE {} SET tenant_id = tenant_id"),
        ("analytics_reader", "INSERT INTO {} (tenant_id) VALUES (gen_random_uuid())"),
        ("analytics_jobs", "TRUNCATE {}"),
        ("analytics_jobs", "ALTER TABLE {} DISABLE ROW LEVEL SECURITY"),
    ],
)
def test_a_role_has_no_unneeded_rights_on_a_jobs_tables(
    simple: Database, job: str, role: str, statement: LiteralString
) -> None:
    with psycopg.connect(simple.uri(role), autocommit=True) as connection:
        connection.execute("SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(uuid4())])
        for table in facts_of(job).tables:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL(statement).format(sql.Identifier(table)))


READERS = ("analytics_reader", "analytics_jobs", "analytics_owner")


@of_every_job
@pytest.mark.parametrize("role", READERS)
def test_without_a_tenant_a_table_raises_instead_of_looking_empty(
    held_by_two: Database, job: str, role: str
) -> None:
    for name in targets_of(job):
        # each has a new connection, in which no tenant was ever set
        with psycopg.connect(held_by_two.uri(role), autocommit=True) as connection:
            query = sql.SQL("SELECT * FROM public.{}").format(sql.Identifier(name))
            with pytest.raises(psycopg.errors.UndefinedObject, match=r"app\.current_tenant_id"):
                connection.execute(query)
            # the same after a transaction of a tenant
            with connection.transaction():
                connection.execute(
                    "SELECT set_config('app.current_tenant_id', %s, TRUE)", [str(uuid4())]
                )
                assert connection.execute(query).fetchall() == [], name
            with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                connection.execute(query)


TENANTS = (UUID(int=1), UUID(int=2))


@pytest.fixture
def held_by_two(simple: Database) -> Database:
    """Return a database with a row in each table of every job, for each of two tenants."""
    with simple.superuser() as connection:
        for job in JOBS:
            for tenant in TENANTS:
                rows = facts_of(job).rows(tenant, unit_of(job, tenant), UUID(int=99))
                for table, row in rows.items():
                    insert(connection, table, row)
    return simple


def unit_of(job: str, tenant: UUID) -> UUID:
    """Return the only unit of a job that a tenant has here."""
    return UUID(int=tenant.int + 10) if JOBS[job].unit is UnitKind.VENUE else tenant


def insert(connection: psycopg.Connection, table: str, row: Mapping[str, Any]) -> None:
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        ),
        row,
    )


@of_every_job
def test_the_facts_of_a_job_have_a_row_of_each_of_its_tables(job: str) -> None:
    assert set(facts_of(job).rows(*TENANTS, UUID(int=99))) == set(facts_of(job).tables)


@of_every_job
@pytest.mark.parametrize("role", READERS)
def test_a_reader_sees_one_tenant_through_each_table_and_view(
    held_by_two: Database, job: str, role: str
) -> None:
    with psycopg.connect(held_by_two.uri(role), autocommit=True) as connection:
        for tenant in TENANTS:
            connection.execute(
                "SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(tenant)]
            )
            for name in targets_of(job):
                query = sql.SQL("SELECT DISTINCT tenant_id FROM public.{}")
                seen = connection.execute(query.format(sql.Identifier(name)))
                assert seen.fetchall() == [(tenant,)], name


@of_every_job
def test_a_job_cannot_write_another_tenants_rows(held_by_two: Database, job: str) -> None:
    mine, others = TENANTS
    facts = facts_of(job)
    with psycopg.connect(held_by_two.uri("analytics_jobs"), autocommit=True) as connection:
        connection.execute("SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(mine)])
        for table, row in facts.rows(others, uuid4(), uuid4()).items():
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                insert(connection, table, row)
            deleted = connection.execute(
                sql.SQL("DELETE FROM {} WHERE tenant_id = %s").format(sql.Identifier(table)),
                [others],
            )
            assert deleted.rowcount == 0


@of_every_job
def test_a_job_removes_all_rows_of_a_unit_and_none_of_another_tenant(
    held_by_two: Database, job: str
) -> None:
    chosen, (mine, others) = JOBS[job], TENANTS
    with held_by_two.jobs() as connection:
        for tenant in TENANTS:
            with tenant_transaction(connection, tenant):
                assert chosen.units_held(connection, tenant) == [unit_of(job, tenant)]
        with tenant_transaction(connection, mine):
            assert chosen.remove(connection, mine, unit_of(job, mine)) > 0
            assert chosen.units_held(connection, mine) == []
    with held_by_two.superuser() as superuser:
        for table in facts_of(job).tables:
            query = sql.SQL("SELECT tenant_id FROM {}").format(sql.Identifier(table))
            assert superuser.execute(query).fetchall() == [(others,)], table


# payloads of dead letters may be personal --------------------------------------------------


@pytest.fixture
def set_aside_by_two(simple: Database) -> Database:
    """Return a database with a dead letter and its payload for each of two tenants."""
    with simple.superuser() as connection:
        connection.execute(
            "INSERT INTO jobs.run (deployment, job, run_id, plan_try, as_of, force, dry_run, "
            "settings, parameters, source_faults, left_behind) VALUES (%s, 'events', 'tonight', 1, "
            "now(), FALSE, FALSE, '{}', '{}', '[]', '[]')",
            [uuid4()],
        )
        for tenant in TENANTS:
            connection.execute(
                "WITH letter AS (INSERT INTO jobs.dead_letter (job, unit_id, tenant_id, "
                "unit_name, kind, key, as_of, run, error_type, error, attempts, first_failed_at, "
                "last_failed_at) SELECT 'events', %(tenant)s, %(tenant)s, 'Hall', 'item', '7', "
                "now(), id, 'ValueError', 'no such seat', 1, now(), now() FROM jobs.run "
                "RETURNING id) INSERT INTO jobs.dead_letter_payload "
                "SELECT id, %(tenant)s, '{}' FROM letter",
                {"tenant": tenant},
            )
    return simple


def test_a_payload_is_visible_only_under_its_tenant(set_aside_by_two: Database) -> None:
    with psycopg.connect(set_aside_by_two.uri("analytics_jobs"), autocommit=True) as connection:
        for tenant in TENANTS:
            connection.execute(
                "SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(tenant)]
            )
            seen = connection.execute("SELECT tenant_id FROM jobs.dead_letter_payload")
            assert seen.fetchall() == [(tenant,)]
        # the letters themselves have no payload, and are listed across tenants
        assert connection.execute("SELECT count(*) FROM jobs.dead_letter").fetchone() == (2,)


def test_a_payload_cannot_be_stored_under_another_tenant(set_aside_by_two: Database) -> None:
    with psycopg.connect(set_aside_by_two.uri("analytics_jobs"), autocommit=True) as connection:
        mine, others = TENANTS
        connection.execute("SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(mine)])
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            connection.execute(
                "INSERT INTO jobs.dead_letter_payload VALUES (1, %s, '{}')", [others]
            )


@pytest.mark.parametrize("role", ["analytics_jobs", "analytics_owner"])
def test_without_a_tenant_payloads_raise_or_do_not_exist(
    set_aside_by_two: Database, role: str
) -> None:
    with psycopg.connect(set_aside_by_two.uri(role), autocommit=True) as connection:
        query = "SELECT payload FROM jobs.dead_letter_payload"
        if role == "analytics_owner":  # no policy makes any row visible to it
            assert connection.execute(query).fetchall() == []
        else:
            with pytest.raises(psycopg.errors.UndefinedObject, match=r"app\.current_tenant_id"):
                connection.execute(query)


def test_the_lister_sees_every_tenants_venues_and_nothing_else(platform: Database) -> None:
    with platform.superuser() as connection:
        may = connection.execute(
            "SELECT n.nspname || '.' || c.relname FROM pg_class AS c "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'v') "
            "AND has_table_privilege('analytics_lister', c.oid, 'SELECT') ORDER BY 1",
            [list(OURS)],
        ).fetchall()
    assert may == [("public.venues",), ("source.venues",)]


def test_a_custom_file_can_be_an_adapter(new_database: NewDatabase, tmp_path: Path) -> None:
    database = with_tables(new_database(None), SIMPLE_TABLES)
    shipped = Path(migrate.__code__.co_filename).parent / "adapters/simple.sql"
    own = tmp_path / "own.sql"
    own.write_text(shipped.read_text().replace("'completed'", "'settled'"))
    assert migrate(owner(database), adapter=str(own)).adapter == str(own)
    with psycopg.connect(database.uri("analytics_owner")) as connection:
        connection.execute("INSERT INTO orders (id, status) VALUES (%s, 'settled')", [uuid4()])
        statuses = connection.execute("SELECT status FROM source.orders").fetchall()
    assert statuses == [("paid",)]


def test_an_adapter_without_one_of_the_views_is_refused(
    new_database: NewDatabase, tmp_path: Path
) -> None:
    database = new_database(None)
    before = catalogue(database)
    own = tmp_path / "own.sql"
    own.write_text("CREATE VIEW source.venues AS SELECT 1 AS venue_id;")
    with pytest.raises(MigrationError, match=r"source\.events.* does not exist"):
        migrate(owner(database), adapter=str(own))
    assert catalogue(database) == before
