"""The servers of the worlds, and the patches that stop the harness before each move."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from importlib.resources import files

import pytest
from tests.databases import Database
from tests.databases import Servers as PostgresServers
from tests.harness.interleavings.processes import (
    RESULTS,
    UNITS,
    WatchedConnection,
    WatchedCursor,
    WatchedWork,
    watched_clock,
)
from tests.harness.interleavings.world import Servers

from venue_analytics.database import statements
from venue_analytics.demo.servers import PostgresServer, ValkeyServer
from venue_analytics.harness import groups, history, leases, plan, process, queue
from venue_analytics.harness.find_units import FoundUnits
from venue_analytics.harness.redis_server import RedisAddress

HARNESS = "venue_analytics.harness"
#: No move waits for a lock, except where the wait itself is the fault.
LOCK_TIMEOUT_MS = 100


@cache
def name_of(text: str) -> str | None:
    """Return the name of the harness's statement that now has this text."""
    folder = files(HARNESS).joinpath("sql")
    names = (path.name.removesuffix(".sql") for path in folder.iterdir())
    return next((n for n in names if statements.statement(HARNESS, n) == text), None)


@pytest.fixture(scope="session")
def database(postgres: PostgresServer, servers: PostgresServers) -> Iterator[Database]:
    """Yield a database for all worlds; each world has its own job."""
    made = servers.take(postgres, "simple")
    with made.superuser() as connection:
        connection.execute(RESULTS)
    yield made
    servers.give_back(made, "simple")


@pytest.fixture(scope="session")
def world_servers(valkey: ValkeyServer, database: Database) -> Iterator[Servers]:
    """Yield what the processes of all worlds share."""
    pool: list[WatchedConnection] = []

    def connect() -> WatchedConnection:
        connection = WatchedConnection.connect(
            database.uri("analytics_jobs"),
            options=f"-c timezone=UTC -c role=analytics_jobs -c lock_timeout={LOCK_TIMEOUT_MS} "
            "-c synchronous_commit=off",
            autocommit=True,
            cursor_factory=WatchedCursor,
        )
        connection.pool = pool
        connection.name_of = name_of
        return connection

    with (
        database.superuser() as observer,
        RedisAddress.parse(valkey.uri, name="the test's Redis").client() as client,
    ):
        yield Servers(observer, connect, pool, client)
    for connection in pool:
        connection.cut()


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stop the harness's processes before each move; signals and clocks belong to the world."""
    monkeypatch.setattr(process, "_BatchWork", WatchedWork)
    monkeypatch.setattr(process, "stopped_by_sigterm", nullcontext)
    monkeypatch.setattr(process, "time", watched_clock())
    monkeypatch.setattr(queue, "time", watched_clock())
    monkeypatch.setattr(leases, "time", watched_clock())
    # the source and the last durations are the same in every episode
    monkeypatch.setattr(
        plan,
        "find_units",
        lambda *_: FoundUnits(list(UNITS), frozenset(unit.id for unit in UNITS), []),
    )
    monkeypatch.setattr(
        history,
        "last_durations",
        lambda _, job, ids: {} if "small" in job else dict.fromkeys(ids, groups.SECONDS),
    )
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
