"""Real servers for the tests: PostgreSQL and Valkey; a fresh database for each test.

`make test` runs each test on PostgreSQL 18, and on 16 too where the version may matter (mark
`both_versions`). `make test-deep` (pytest --deep) runs nearly all on both, with the tests marked
`deep`, and with many more examples of each property.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
import redis
from hypothesis import settings
from psycopg import sql
from xdist.scheduler import LoadScopeScheduling

from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.database.migrate import migrate
from venue_analytics.demo.airflow import MIGRATE, plain_environment
from venue_analytics.demo.profile import ROOT
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


VERSIONS = (16, 18)
ONE_AIRFLOW = "tests/dags/scheduler/"

# A test of a property takes max_examples, or a multiple of it.
settings.register_profile("quick", max_examples=15, derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=100, print_blob=True, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", action="store_true", help="everything, on both PostgreSQL versions")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("deep" if config.getoption("deep") else "quick")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Say which PostgreSQL versions a test runs on."""
    if "postgres" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker
    is_for_both = mark("both_versions") or (
        metafunc.config.getoption("deep") and not mark("one_version")
    )
    versions = VERSIONS if is_for_both else VERSIONS[-1:]
    metafunc.parametrize(
        "postgres", versions, indirect=True, scope="session", ids="postgres{}".format
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the deep tests out unless asked for; begin with those that take longest together."""
    left_out = [item for item in items if item.get_closest_marker("deep")]
    if left_out and not config.getoption("deep"):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: not item.nodeid.startswith(ONE_AIRFLOW))


class ByFile(LoadScopeScheduling):
    """Shares tests out by file, so that its fixtures are made once; those of one Airflow too."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return ONE_AIRFLOW if file.startswith(ONE_AIRFLOW) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByFile(config, log)


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


class Servers:
    """The PostgreSQL servers of a session: each version is started when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()
        self._servers: dict[int, PostgresServer] = {}
        self._templates: dict[tuple[int, str], str] = {}

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
            do_not_wait_for_the_disk(server)
        return self._servers[version]

    def template(self, server: PostgresServer, adapter: str) -> str:
        """Return the name of a database that is migrated for an adapter, to be copied."""
        key = (server.version, adapter)
        if key not in self._templates:
            name = f"template_{adapter}"
            server.prepare({name: "analytics_owner"})
            tables = {"simple": SIMPLE_TABLES, "platform": PLATFORM_TABLES}.get(adapter, "")
            with psycopg.connect(server.uri(name, "analytics_owner")) as connection:
                connection.execute(tables)
            address = DatabaseAddress.parse(server.uri(name, "analytics_owner"), name=name)
            migrate(address, adapter=adapter)
            self._templates[key] = name
        return self._templates[key]


def do_not_wait_for_the_disk(server: PostgresServer) -> None:
    """Leave out what only a crash of the machine needs; one of the server alone loses nothing."""
    with psycopg.connect(server.superuser_uri(), autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes"):
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
        connection.execute("SELECT pg_reload_conf()")


def copy_database(server: PostgresServer, template: str, name: str, owner: str) -> None:
    """Copy a database; a copy of its files is quicker than one through the log, or a TRUNCATE."""
    with psycopg.connect(server.superuser_uri(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template), sql.Identifier(owner)
            )
        )


def drop_databases(server: PostgresServer, names: Iterable[str]) -> None:
    """Drop databases, whoever is connected to them."""
    with psycopg.connect(server.superuser_uri(), autocommit=True) as connection:
        for name in names:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


@pytest.fixture(scope="session")
def servers(server_directory: Path) -> Iterator[Servers]:
    """The PostgreSQL servers of this session."""
    with Servers(server_directory) as started:
        yield started


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, servers: Servers) -> PostgresServer:
    """The PostgreSQL server of the version that a test runs on."""
    version: int = request.param
    return servers.postgres(version)


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
def template(postgres: PostgresServer, servers: Servers) -> Callable[[str], str]:
    """Give, for an adapter, the name of a migrated database to copy."""
    return partial(servers.template, postgres)


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
            copy_database(postgres, template(adapter), name, "analytics_owner")
        made.append(name)
        return Database(postgres, name)

    yield make
    drop_databases(postgres, made)


@pytest.fixture
def simple(new_database: Callable[[str | None], Database]) -> Database:
    """A migrated database over the adapter `simple`'s three tables, empty."""
    return new_database("simple")


@pytest.fixture
def platform(new_database: Callable[[str | None], Database]) -> Database:
    """A migrated database over the platform's tables, empty, without their keys and policies."""
    return new_database("platform")


def isolated_environment(home: Path, metadata: str) -> dict[str, str]:
    """What an Airflow process needs to know nothing of any other Airflow."""
    return plain_environment() | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


@pytest.fixture(scope="session")
def airflow_environment(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment of an Airflow whose metadata database is there and up to date."""
    postgres = servers.postgres(18)
    postgres.prepare({"airflow": "airflow"})
    environment = isolated_environment(
        tmp_path_factory.mktemp("airflow"), postgres.uri("airflow", "airflow", "psycopg2")
    )
    migrated = subprocess.run(MIGRATE, env=environment, capture_output=True, text=True, check=False)
    assert migrated.returncode == 0, migrated.stderr[-2_000:]
    return environment
