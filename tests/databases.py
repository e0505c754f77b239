"""Databases for the tests: copies of migrated ones, which are emptied and reused.

CREATE and DROP DATABASE for each of a thousand tests would create and delete 300 files each time,
which a file system does ever more slowly.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.database.migrate import migrate
from venue_analytics.demo.servers import PostgresServer

SIMPLE_TABLES = """
CREATE TABLE orders (
    id uuid PRIMARY KEY, tenant_id uuid, user_id uuid, venue_id uuid, status text,
    total_amount numeric, created_at timestamptz
);
CREATE TABLE users (id uuid PRIMARY KEY);
CREATE TABLE venues (id uuid PRIMARY KEY, tenant_id uuid, name text);
"""
PLATFORM_TABLES = (
    Path(__file__).parents[1] / "include/venue_analytics/demo/platform_schema.sql"
).read_text()
TABLES = {"simple": SIMPLE_TABLES, "platform": PLATFORM_TABLES}
#: A digest of everything but rows that a test may have changed: tables, views, functions, rights,
#: statistics, and the current adapter. xmin is the transaction that wrote an entry.
SHAPE = """
WITH ours AS (
    SELECT c.* FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('public', 'jobs', 'source', 'csv')
)
SELECT md5(string_agg(entry, ',' ORDER BY entry)) FROM (
    SELECT concat_ws(
        ' ', oid, relname, relowner, relacl, reloptions, relrowsecurity, relforcerowsecurity
    )
    FROM ours
    UNION ALL SELECT concat_ws(' ', 'a', a.attrelid, a.attnum, a.xmin)
    FROM pg_attribute AS a JOIN ours AS o ON o.oid = a.attrelid
    UNION ALL SELECT concat_ws(' ', 'v', s.starelid, s.staattnum, s.xmin)
    FROM pg_statistic AS s JOIN ours AS o ON o.oid = s.starelid
    UNION ALL SELECT concat_ws(' ', 'x', oid, xmin) FROM pg_statistic_ext
    UNION ALL SELECT concat_ws(' ', 'd', datacl) FROM pg_database WHERE datname = current_database()
    UNION ALL SELECT concat_ws(' ', 'p', oid, xmin) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT concat_ws(' ', 't', oid, xmin) FROM pg_trigger
    UNION ALL SELECT concat_ws(' ', 'y', oid, xmin) FROM pg_policy
    UNION ALL SELECT concat_ws(' ', 'r', oid, xmin) FROM pg_rewrite WHERE oid >= 16384
    UNION ALL SELECT concat_ws(' ', 'c', oid, xmin) FROM pg_constraint
    UNION ALL SELECT concat_ws(' ', 'n', oid, nspname, nspacl) FROM pg_namespace
    WHERE nspname NOT LIKE 'pg\\_temp%' AND nspname NOT LIKE 'pg\\_toast%'
    UNION ALL SELECT concat_ws(' ', 's', setrole, setconfig) FROM pg_db_role_setting AS s
    JOIN pg_database AS d ON d.oid = s.setdatabase AND d.datname = current_database()
    UNION ALL SELECT concat_ws(' ', a.name, a.currency) FROM source.adapter AS a
) AS e (entry)
"""
#: Deletes all rows but the adapter's, and resets the sequences. As a replica, the session checks no
#: foreign keys and fires no triggers.
EMPTY = """
DO $$
DECLARE
    one record;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR one IN
        SELECT c.oid::regclass AS name, c.relkind FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('public', 'jobs', 'csv') AND c.relkind IN ('r', 'S')
        AND c.relname <> 'alembic_version'
    LOOP
        IF one.relkind = 'r' THEN
            EXECUTE format('DELETE FROM %s', one.name);
        ELSE
            EXECUTE format('ALTER SEQUENCE %s RESTART', one.name);
        END IF;
    END LOOP;
END $$
"""

_numbers = count(1)


@dataclass(frozen=True)
class Database:
    """A separate database for one test."""

    server: PostgresServer
    name: str

    def uri(self, user: str) -> str:
        """Return its address for one of the roles: analytics_owner, analytics_jobs, …"""
        return self.server.uri(self.name, user)

    def address(self, user: str = "analytics_jobs") -> DatabaseAddress:
        """Return its address in the form that the project's code takes."""
        return DatabaseAddress.parse(self.uri(user), name="the test's database")

    def jobs(self) -> psycopg.Connection:
        """Connect as every job does, under row-level security."""
        return connect(self.address())

    def superuser(self) -> psycopg.Connection:
        """Connect for setup and inspection; bypasses row-level security, as no job may."""
        return psycopg.connect(
            self.server.superuser_uri(self.name), autocommit=True, options="-c timezone=UTC"
        )


class Servers:
    """The PostgreSQL servers of a session; each version is started when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()
        self._servers: dict[int, PostgresServer] = {}
        self._templates: dict[tuple[int, str], Database] = {}
        self._shapes: dict[tuple[int, str], str] = {}
        self._free: dict[tuple[int, str], list[Database]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def postgres(self, version: int) -> PostgresServer:
        """Return the server of a version."""
        if version not in self._servers:
            server = PostgresServer(self.directory / f"postgres{version}", version)
            self._servers[version] = self._stack.enter_context(server)
            server.prepare({})
            make_plain_and_quick(server)
        return self._servers[version]

    def template(self, server: PostgresServer, adapter: str) -> str:
        """Return the name of a database to copy, migrated for an adapter."""
        key = (server.version, adapter)
        if key not in self._templates:
            template = Database(server, f"template_{adapter}")
            server.prepare({template.name: "analytics_owner"})
            with psycopg.connect(template.uri("analytics_owner")) as connection:
                connection.execute(TABLES.get(adapter, ""))
            migrate(template.address("analytics_owner"), adapter=adapter)
            with template.superuser() as connection:
                self._shapes[key] = shape_of(connection)
            self._templates[key] = template
        return self._templates[key].name

    def take(self, server: PostgresServer, adapter: str) -> Database:
        """Return an empty database migrated for an adapter; it may be a reused one."""
        if free := self._free.get((server.version, adapter)):
            return free.pop()
        database = Database(server, f"test_{next(_numbers)}")
        copy_database(server, self.template(server, adapter), database.name, "analytics_owner")
        return database

    def make(self, server: PostgresServer) -> Database:
        """Return a new, empty database."""
        database = Database(server, f"test_{next(_numbers)}")
        server.prepare({database.name: "analytics_owner"})
        return database

    def give_back(self, database: Database, adapter: str) -> None:
        """Empty a database for the next test; drop it if more than its rows have changed."""
        key = (database.server.version, adapter)
        with database.superuser() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            is_as_made = shape_of(connection) == self._shapes[key]
            if is_as_made:
                connection.execute(EMPTY)
        if is_as_made:
            self._free.setdefault(key, []).append(database)
        else:
            drop_databases(database.server, [database.name])


def shape_of(connection: psycopg.Connection) -> str:
    """Return the digest of everything but the rows."""
    (shape,) = connection.execute(SHAPE).fetchone() or ("",)
    return str(shape)


def make_plain_and_quick(server: PostgresServer) -> None:
    """Switch off what would make tests vary, and what is only for a crash of the machine.

    Without autovacuum nothing is analysed in the background, so a statement's plan is the same each
    time. A crash of only the server loses nothing.
    """
    with psycopg.connect(server.superuser_uri(), autocommit=True) as connection:
        for setting in ("autovacuum", "fsync", "full_page_writes"):
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
        connection.execute("SELECT pg_reload_conf()")


def copy_database(server: PostgresServer, template: str, name: str, owner: str) -> None:
    """Copy a database by its files, which is faster without fsync than through the log."""
    with psycopg.connect(server.superuser_uri(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template), sql.Identifier(owner)
            )
        )


def drop_databases(server: PostgresServer, names: Iterable[str]) -> None:
    """Drop databases, even if sessions are connected to them."""
    with psycopg.connect(server.superuser_uri(), autocommit=True) as connection:
        for name in names:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )
