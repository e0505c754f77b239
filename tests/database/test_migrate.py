"""Migrations: what they make, what they refuse, and who may do what afterwards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from tests.databases import PLATFORM_TABLES, SIMPLE_TABLES, Database

from venue_analytics.database.connection import DatabaseAddress
from venue_analytics.database.migrate import MigrationError, migrate
from venue_analytics.demo.servers import PostgresServer

TONIGHT = datetime(2026, 3, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
OUR_AIRFLOW = UUID(int=1)
pytestmark = pytest.mark.both_versions
NewDatabase = Callable[[str | None], Database]
OURS = ("public", "jobs", "source", "csv")
#: Tables of the platform and of `simple` are the source's, not ours.
OUR_TABLES = """
SELECT n.nspname || '.' || c.relname
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY(%s) AND c.relkind = ANY(%s)
AND pg_get_userbyid(c.relowner) = 'analytics_owner'
ORDER BY 1
"""
TARGETS = {
    "public.customer_rfm_scores",
    "public.customer_segments",
    "public.customer_venue_value",
    "public.customer_lifetime_value",
    "public.customer_segment_history",
    "public.segment_movements",
}


def names(database: Database, kinds: str = "rv") -> set[str]:
    """Give our tables (r) and views (v)."""
    with database.superuser() as connection:
        rows = connection.execute(OUR_TABLES, [list(OURS), list(kinds)]).fetchall()
    return {name for (name,) in rows}


def catalogue(database: Database) -> list[tuple[Any, ...]]:
    """Give all relations and schemas, with what tells a new one from an old one."""
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
    assert names(database) >= TARGETS | {"jobs.run", "jobs.batch", "jobs.venue_run"}


def test_the_platforms_tables_stay_as_they_are(new_database: NewDatabase) -> None:
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


def test_the_currency_in_force_is_kept_until_another_is_given(new_database: NewDatabase) -> None:
    database = new_database("simple")
    migrate(owner(database), currency="EUR")
    migrate(owner(database))
    with database.superuser() as connection:
        assert connection.execute("SELECT currency FROM source.adapter").fetchone() == ("EUR",)


@pytest.mark.parametrize("currency", ["eur", "EURO", ""])
def test_a_currency_that_is_no_code_is_refused(simple: Database, currency: str) -> None:
    with pytest.raises(MigrationError, match=r"must be an ISO 4217 code"):
        migrate(owner(simple), currency=currency)


@pytest.mark.parametrize(
    "table", ["customer_rfm_scores", "customer_segments", "customer_lifetime_value"]
)
def test_a_target_table_in_the_way_is_named_and_untouched(
    new_database: NewDatabase, table: str
) -> None:
    database = with_tables(
        new_database(None), SIMPLE_TABLES + f"CREATE TABLE {table} AS SELECT 7 AS theirs;"
    )
    before = catalogue(database)
    with pytest.raises(MigrationError, match=rf"not made by these migrations: public\.{table}\."):
        migrate(owner(database), adapter="simple")
    assert catalogue(database) == before
    with database.superuser() as connection:
        found = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
        assert found.fetchall() == [(7,)]


@pytest.mark.parametrize("schema", ["jobs", "source"])
def test_a_schema_of_somebody_elses_is_refused(new_database: NewDatabase, schema: str) -> None:
    database = with_tables(new_database(None), SIMPLE_TABLES)
    with database.superuser() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    before = catalogue(database)
    with pytest.raises(MigrationError, match=rf"schema {schema} already exists and belongs to"):
        migrate(owner(database), adapter="simple")
    assert catalogue(database) == before


def test_an_unknown_adapter_is_refused_and_nothing_is_made(new_database: NewDatabase) -> None:
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
def test_source_tables_that_do_not_fit_are_told_in_words_and_nothing_is_made(
    new_database: NewDatabase, change: str, words: str
) -> None:
    database = with_tables(new_database(None), SIMPLE_TABLES + change)
    before = catalogue(database)
    with pytest.raises(MigrationError, match=words) as raised:
        migrate(owner(database), adapter="simple")
    assert "adapter simple does not fit this database" in str(raised.value)
    assert catalogue(database) == before


def test_a_login_without_rights_is_told_what_it_needs(new_database: NewDatabase) -> None:
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


def test_a_login_that_may_only_make_roles_migrates_a_database_of_its_own() -> None:
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
def test_what_a_superuser_migrates_belongs_to_the_owner_all_the_same(
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


def test_the_owner_may_migrate_again_what_a_superuser_migrated(new_database: NewDatabase) -> None:
    database = new_database(None)
    address = DatabaseAddress.parse(
        database.server.superuser_uri(database.name), name="the superuser's address"
    )
    first = migrate(address, adapter="csv")
    assert migrate(owner(database)).to_revision == first.to_revision


# who may do what ---------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["simple", "platform", "csv"])
def test_every_table_of_ours_has_row_level_security_forced(
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
def test_every_view_of_ours_looks_with_its_readers_rights(
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
        # membership would lend the lister's sight
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
        ("analytics_reader", "SELECT FROM jobs.venue_run"),
        ("analytics_reader", "SELECT FROM jobs.batch"),
        ("analytics_reader", "SELECT FROM jobs.fence"),
        ("analytics_reader", "SELECT FROM jobs.checkpoint"),
        ("analytics_reader", "SELECT FROM jobs.dead_letter"),
        ("analytics_reader", "SELECT FROM jobs.dead_letter_payload"),
        (
            "analytics_reader",
            "SELECT jobs.enter('rfm_scoring', gen_random_uuid(), '{}', '{}', NULL)",
        ),
        ("analytics_reader", "SELECT FROM source.orders"),
        ("analytics_reader", "SELECT FROM source.customers"),
        ("analytics_reader", "SELECT FROM jobs.list_venues()"),
        ("analytics_reader", "DELETE FROM customer_rfm_state"),
        ("analytics_reader", "UPDATE customer_segments SET customer_count = 0"),
        ("analytics_reader", "INSERT INTO venue_rfm_state VALUES (gen_random_uuid())"),
        ("analytics_jobs", "DELETE FROM jobs.run"),
        ("analytics_jobs", "DELETE FROM jobs.venue_run"),
        ("analytics_jobs", "DELETE FROM jobs.batch"),
        # a token must never come back
        ("analytics_jobs", "DELETE FROM jobs.fence"),
        ("analytics_jobs", "TRUNCATE jobs.fence"),
        ("analytics_jobs", "DELETE FROM jobs.dead_letter"),
        ("analytics_jobs", "TRUNCATE customer_rfm_state"),
        ("analytics_jobs", "UPDATE orders SET status = 'completed'"),
        ("analytics_jobs", "DELETE FROM users"),
        ("analytics_jobs", "UPDATE source.adapter SET currency = 'EUR'"),
        ("analytics_jobs", "CREATE TABLE jobs.own (id integer)"),
        ("analytics_jobs", "CREATE TABLE public.own (id integer)"),
        ("analytics_jobs", "ALTER TABLE customer_rfm_state DISABLE ROW LEVEL SECURITY"),
        ("analytics_jobs", "SET ROLE analytics_lister"),
    ],
)
def test_a_role_may_not_do_what_it_need_not(simple: Database, role: str, statement: str) -> None:
    with psycopg.connect(simple.uri(role)) as connection:
        connection.execute("SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(uuid4())])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


@pytest.mark.parametrize("role", ["analytics_reader", "analytics_jobs", "analytics_owner"])
@pytest.mark.parametrize(
    "name",
    [
        "customer_rfm_state",
        "venue_rfm_state",
        "customer_segments",
        "customer_rfm_scores",
        "customer_venue_value",
        "customer_lifetime_value",
        "tenant_currency",
        "customer_segment_change",
        "venue_rfm_rules",
        "customer_segment_history",
        "segment_movements",
    ],
)
def test_without_a_tenant_a_table_raises_instead_of_looking_empty(
    held_by_two: Database, role: str, name: str
) -> None:
    with psycopg.connect(held_by_two.uri(role), autocommit=True) as connection:
        query = sql.SQL("SELECT * FROM public.{}").format(sql.Identifier(name))
        with pytest.raises(psycopg.errors.UndefinedObject, match=r"app\.current_tenant_id"):
            connection.execute(query)
        # and once a transaction of a tenant has gone by
        with connection.transaction():
            connection.execute(
                "SELECT set_config('app.current_tenant_id', %s, TRUE)", [str(uuid4())]
            )
            assert connection.execute(query).fetchall() == []
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            connection.execute(query)


TENANTS = (UUID(int=1), UUID(int=2))


@pytest.fixture
def held_by_two(simple: Database) -> Database:
    """A database with scores of one customer at one venue for each of two tenants."""
    with simple.superuser() as connection:
        for tenant in TENANTS:
            venue = UUID(int=tenant.int + 10)
            connection.execute(
                "INSERT INTO customer_rfm_state VALUES (%s, %s, %s, now(), now(), now(), "
                "100, 1, 5, 1, 1, 3, 1, TRUE)",
                [venue, UUID(int=99), tenant],
            )
            connection.execute(
                "INSERT INTO venue_rfm_state VALUES (%s, %s, now(), 'USD', 'USD')",
                [venue, tenant],
            )
            connection.execute(
                "INSERT INTO customer_segments VALUES (%s, %s, 'VIP', 1, 1, 1, 1, 1, now())",
                [venue, tenant],
            )
            connection.execute(
                "INSERT INTO customer_segment_change VALUES (%s, %s, now(), %s, 4, 1, 100, FALSE)",
                [venue, UUID(int=99), tenant],
            )
            connection.execute(
                "INSERT INTO venue_rfm_rules VALUES (%s, now(), %s, 'hash', 'USD', '{}')",
                [venue, tenant],
            )
    return simple


@pytest.mark.parametrize("role", ["analytics_reader", "analytics_jobs", "analytics_owner"])
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_reader_sees_one_tenant_through_each_view(
    held_by_two: Database, role: str, name: str
) -> None:
    with psycopg.connect(held_by_two.uri(role), autocommit=True) as connection:
        for tenant in TENANTS:
            connection.execute(
                "SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(tenant)]
            )
            seen = connection.execute(f"SELECT tenant_id FROM {name}")  # noqa: S608
            assert seen.fetchall() == [(tenant,)]


def test_the_jobs_cannot_write_another_tenants_rows(held_by_two: Database) -> None:
    with psycopg.connect(held_by_two.uri("analytics_jobs"), autocommit=True) as connection:
        mine, others = TENANTS
        connection.execute("SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(mine)])
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            connection.execute(
                "INSERT INTO venue_rfm_state (venue_id, tenant_id) VALUES (%s, %s)",
                [uuid4(), others],
            )
        deleted = connection.execute("DELETE FROM venue_rfm_state WHERE tenant_id = %s", [others])
        assert deleted.rowcount == 0


# what a job could not process may be personal -----------------------------------------------


@pytest.fixture
def set_aside_by_two(simple: Database) -> Database:
    """A database with an item of each of two tenants in its dead letters, and their payloads."""
    with simple.superuser() as connection:
        connection.execute(
            "INSERT INTO jobs.run (deployment, job, run_id, plan_try, plan_number, as_of, force, "
            "dry_run, settings, source_faults, left_behind) VALUES (%s, 'events', 'tonight', 1, 1, "
            "now(), FALSE, FALSE, '{}', '[]', '[]')",
            [uuid4()],
        )
        for tenant in TENANTS:
            connection.execute(
                "WITH letter AS (INSERT INTO jobs.dead_letter (job, venue_id, tenant_id, "
                "venue_name, kind, key, as_of, run, error_type, error, attempts, first_failed_at, "
                "last_failed_at) SELECT 'events', %(tenant)s, %(tenant)s, 'Hall', 'item', '7', "
                "now(), id, 'ValueError', 'no such seat', 1, now(), now() FROM jobs.run "
                "RETURNING id) INSERT INTO jobs.dead_letter_payload "
                "SELECT id, %(tenant)s, '{}' FROM letter",
                {"tenant": tenant},
            )
    return simple


def test_a_payload_is_seen_under_its_tenant_alone(set_aside_by_two: Database) -> None:
    with psycopg.connect(set_aside_by_two.uri("analytics_jobs"), autocommit=True) as connection:
        for tenant in TENANTS:
            connection.execute(
                "SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(tenant)]
            )
            seen = connection.execute("SELECT tenant_id FROM jobs.dead_letter_payload")
            assert seen.fetchall() == [(tenant,)]
        # the letters themselves hold none of it, and are listed across tenants
        assert connection.execute("SELECT count(*) FROM jobs.dead_letter").fetchone() == (2,)


def test_a_payload_is_not_kept_under_another_tenant(set_aside_by_two: Database) -> None:
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
        if role == "analytics_owner":  # no policy lets it see any
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


def test_a_file_of_ones_own_is_an_adapter(new_database: NewDatabase, tmp_path: Path) -> None:
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
