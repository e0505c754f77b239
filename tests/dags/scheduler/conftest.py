"""One Airflow for all tests of this folder, and a separate database for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest
import redis
from tests.conftest import AIRFLOW_METADATA
from tests.dags.scheduler.history import History
from tests.dags.scheduler.stack import JOB, Stack, running
from tests.databases import Database, Servers, copy_database, drop_databases

from venue_analytics.demo.servers import PostgresServer, ValkeyServer
from venue_analytics.harness.redis_server import RedisAddress

#: The Variables of the stack's DAGs, set before they are parsed. A deadline of a week stays armed.
VARIABLES: dict[str, dict[str, Any]] = {
    JOB: {"retries": 0, "deadline_minutes": 10_080},
    "twin": {"retries": 0, "deadline_minutes": 1},
    "watched": {"cron": "* * * * *", "deadline_minutes": 1, "pool": "closed"},
    "late": {"deadline_minutes": 1, "pool": "closed"},
    "hasty": {"enabled": False, "retries": 2, "retry_delay_seconds": 2},
    "brief": {"enabled": False, "retries": 0},
    "frail": {"enabled": False, "retries": 1, "retry_delay_seconds": 2},
}
METADATA = ("airflow_one", "airflow_two")

MakeDatabase = Callable[[], AbstractContextManager[Database]]


@pytest.fixture(scope="package")
def own_postgres(servers: Servers, airflow_environment: dict[str, str]) -> PostgresServer:
    """Return the PostgreSQL 18 server, with the metadata of two Airflows."""
    server = servers.postgres(18)
    for name in METADATA:
        copy_database(server, AIRFLOW_METADATA, name, "airflow")
    return server


@pytest.fixture(scope="package")
def stack(
    own_postgres: PostgresServer, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Yield the Airflow of these tests; the runs of its DAGs `watched` and `late` never proceed."""
    directory = tmp_path_factory.mktemp(METADATA[0])
    with running(
        METADATA[0], directory, own_postgres, valkey, VARIABLES, triggerer=True
    ) as started:
        for dag_id in ("watched", "late", "hasty", "brief", "frail"):
            started.api.unpause(dag_id)
        yield started


@pytest.fixture(scope="package")
def new_database(servers: Servers, stack: Stack, valkey: ValkeyServer) -> MakeDatabase:
    """Return a maker of databases: the stack's jobs then use the new one, with an empty Redis."""

    @contextmanager
    def make() -> Iterator[Database]:
        database = servers.take(servers.postgres(18), "simple")
        with RedisAddress.parse(valkey.uri, name="the test's Redis").client() as client:
            client.flushall()
        stack.work_on(database)
        yield database
        # A task of a run that has ended may still write, so this database is not reused.
        drop_databases(database.server, [database.name])

    return make


@pytest.fixture
def database(stack: Stack, new_database: MakeDatabase) -> Iterator[Database]:
    """Yield an empty database for one test, after the job's first scheduled run."""
    with new_database() as made:
        if not stack.api.newest_runs(JOB):
            stack.ended(stack.first_run(JOB).run_id)
        yield made


@pytest.fixture
def superuser(database: Database) -> Iterator[psycopg.Connection]:
    with database.superuser() as connection:
        yield connection


@pytest.fixture
def history(superuser: psycopg.Connection) -> History:
    return History(superuser)


@pytest.fixture
def redis_client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    """Yield a client of the Redis with the leases, without emptying it."""
    with RedisAddress.parse(valkey.uri, name="the test's Redis").client() as client:
        yield client
