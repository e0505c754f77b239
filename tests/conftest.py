"""Real servers for the tests: PostgreSQL and Valkey; a fresh database for each test.

`make test` runs each test on PostgreSQL 18, and on 16 too where the version may matter (mark
`both_versions`). `make test-deep` (pytest --deep) runs nearly all on both, with the tests marked
`deep`, and with many more examples of each property.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings
from tests.databases import Database, Servers, drop_databases
from xdist.scheduler import LoadScopeScheduling

from venue_analytics.demo.airflow import MIGRATE, plain_environment
from venue_analytics.demo.profile import ROOT
from venue_analytics.demo.servers import PostgresServer, ValkeyServer
from venue_analytics.harness.redis_server import RedisAddress

VERSIONS = (16, 18)
ONE_AIRFLOW = "tests/dags/scheduler/"
AIRFLOW_METADATA = "airflow"
#: The slowest paths in one process, which therefore start first; tests marked `long` follow.
LONGEST = (ONE_AIRFLOW, "tests/harness/interleavings/")

# A test of a property takes max_examples, or a multiple of it.
settings.register_profile("quick", max_examples=10, derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=100, print_blob=True, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", action="store_true", help="everything, on both PostgreSQL versions")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("deep" if config.getoption("deep") else "quick")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test with the PostgreSQL versions that it runs on."""
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
    """Deselect the deep tests unless --deep is given; put the slowest files first."""
    left_out = [item for item in items if item.get_closest_marker("deep")]
    if left_out and not config.getoption("deep"):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(
        key=lambda item: [
            *(not item.nodeid.startswith(path) for path in LONGEST),
            item.get_closest_marker("long") is None,
        ]
    )


class ByFile(LoadScopeScheduling):
    """Distributes tests by file, so that its fixtures are made once; one Airflow is one file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return ONE_AIRFLOW if file.startswith(ONE_AIRFLOW) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByFile(config, log)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Yield the directory where the servers keep their data.

    It is not below pytest's own temporary folder. Another pytest session closes that folder to
    other users, and when the tests run as root, the servers run as another user.
    """
    with tempfile.TemporaryDirectory(prefix="venue-analytics-tests-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def servers(server_directory: Path) -> Iterator[Servers]:
    """Yield the PostgreSQL servers of this session."""
    with Servers(server_directory) as started:
        yield started


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, servers: Servers) -> PostgresServer:
    """Return the PostgreSQL server of the version that a test runs on."""
    version: int = request.param
    return servers.postgres(version)


@pytest.fixture(scope="session")
def valkey(server_directory: Path) -> Iterator[ValkeyServer]:
    """Yield a Redis-protocol server for the whole session."""
    with ValkeyServer(server_directory / "valkey") as server:
        yield server


@pytest.fixture
def redis_client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    """Yield a client of a Redis that has just been emptied."""
    with RedisAddress.parse(valkey.uri, name="the test's Redis").client() as client:
        client.flushall()
        yield client


@pytest.fixture
def new_database(
    postgres: PostgresServer, servers: Servers
) -> Iterator[Callable[[str | None], Database]]:
    """Make databases for one test: migrated for an adapter, or empty for None."""
    made: list[tuple[Database, str | None]] = []

    def make(adapter: str | None) -> Database:
        database = servers.make(postgres) if adapter is None else servers.take(postgres, adapter)
        made.append((database, adapter))
        return database

    yield make
    for database, adapter in made:
        if adapter is None:
            drop_databases(postgres, [database.name])
        else:
            servers.give_back(database, adapter)


@pytest.fixture(scope="module")
def shared_database(
    postgres: PostgresServer, servers: Servers
) -> Iterator[Callable[[str], Database]]:
    """Share one database per file and adapter, for tests that empty it themselves or roll back."""
    made: dict[str, Database] = {}

    def take(adapter: str) -> Database:
        if adapter not in made:
            made[adapter] = servers.take(postgres, adapter)
        return made[adapter]

    yield take
    for adapter, database in made.items():
        servers.give_back(database, adapter)


@pytest.fixture
def simple(new_database: Callable[[str | None], Database]) -> Database:
    """Return an empty, migrated database over the three tables of the adapter `simple`."""
    return new_database("simple")


@pytest.fixture
def platform(new_database: Callable[[str | None], Database]) -> Database:
    """Return an empty, migrated database over the platform's tables, without keys and policies."""
    return new_database("platform")


def isolated_environment(home: Path, metadata: str) -> dict[str, str]:
    """Return an environment that isolates an Airflow process from any other Airflow."""
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
    """Return the environment of an Airflow whose metadata database is migrated."""
    postgres = servers.postgres(18)
    postgres.prepare({AIRFLOW_METADATA: "airflow"})
    environment = isolated_environment(
        tmp_path_factory.mktemp("airflow"), postgres.uri(AIRFLOW_METADATA, "airflow", "psycopg2")
    )
    migrated = subprocess.run(MIGRATE, env=environment, capture_output=True, text=True, check=False)
    assert migrated.returncode == 0, migrated.stderr[-2_000:]
    return environment
