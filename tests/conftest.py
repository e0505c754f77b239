"""Real servers for the tests: PostgreSQL 16 and 18, Valkey; a fresh database for each test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql

from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.database.migrate import migrate
from venue_analytics.demo.servers import PostgresServer, ValkeyServer
from venue_analytics.harness.redis_server import RedisAddress

_numbers = count(1)

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


@dataclass(frozen=True)
class Database:
    """A database of its own for one test."""

    server: PostgresServer
    name: str

    def uri(self, user: str) -> str:
        """Give its address for one of the roles: analytics_owner, analytics_jobs, …"""
        return self.server.uri(self.name, user)

    def address(self, user: str = "analytics_jobs") -> DatabaseAddress:
        """Give its address as our code takes it."""
        return DatabaseAddress.parse(self.uri(user), name="the test's database")

    def jobs(self) -> psycopg.Connection:
        """Connect as every job does; row-level security holds."""
        return connect(self.address())

    def superuser(self) -> psycopg.Connection:
        """Connect past row-level security, to arrange and to look; nothing of ours runs so."""
        return psycopg.connect(
            self.server.superuser_uri(self.name), autocommit=True, options="-c timezone=UTC"
        )


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Where the servers keep their data.

    Not below pytest's own temporary folder: another session shuts that one against other users,
    and as root the servers run as one.
    """
    with tempfile.TemporaryDirectory(prefix="venue-analytics-tests-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session", params=[16, 18], ids=["postgres16", "postgres18"])
def postgres(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[PostgresServer]:
    """One PostgreSQL server a version, for the whole session."""
    with PostgresServer(server_directory / f"postgres{request.param}", request.param) as server:
        server.prepare({})
        yield server


@pytest.fixture(scope="session")
def valkey(server_directory: Path) -> Iterator[ValkeyServer]:
    """A Redis-protocol server, for the whole session."""
    with ValkeyServer(server_directory / "valkey") as server:
        yield server


@pytest.fixture
def redis_client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    """A client of a Redis that has just been emptied."""
    with RedisAddress.parse(valkey.uri, name="the test's Redis").client() as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def template(postgres: PostgresServer) -> Callable[[str], str]:
    """Give, for an adapter, the name of a migrated database to copy."""
    made: dict[str, str] = {}

    def make(adapter: str) -> str:
        if adapter not in made:
            name = f"template_{adapter}"
            postgres.prepare({name: "analytics_owner"})
            tables = {"simple": SIMPLE_TABLES, "platform": PLATFORM_TABLES}.get(adapter, "")
            with psycopg.connect(postgres.uri(name, "analytics_owner")) as connection:
                connection.execute(tables)
            address = DatabaseAddress.parse(postgres.uri(name, "analytics_owner"), name=name)
            migrate(address, adapter=adapter)
            made[adapter] = name
        return made[adapter]

    return make


@pytest.fixture
def new_database(
    postgres: PostgresServer, template: Callable[[str], str]
) -> Iterator[Callable[[str | None], Database]]:
    """Make databases for one test: migrated for an adapter, or empty for None."""
    made: list[str] = []

    def make(adapter: str | None) -> Database:
        name = f"test_{next(_numbers)}"
        if adapter is None:
            postgres.prepare({name: "analytics_owner"})
        else:
            source = template(adapter)
            with psycopg.connect(postgres.superuser_uri(), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER analytics_owner").format(
                        sql.Identifier(name), sql.Identifier(source)
                    )
                )
        made.append(name)
        return Database(postgres, name)

    yield make
    with psycopg.connect(postgres.superuser_uri(), autocommit=True) as connection:
        for name in made:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


@pytest.fixture
def simple(new_database: Callable[[str | None], Database]) -> Database:
    """A migrated database over the adapter `simple`'s three tables, empty."""
    return new_database("simple")


@pytest.fixture
def platform(new_database: Callable[[str | None], Database]) -> Database:
    """A migrated database over the platform's tables, empty, without their keys and policies."""
    return new_database("platform")
