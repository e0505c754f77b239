"""Databases that the tests of one job share, emptied before each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis
from psycopg import sql
from tests.conftest import Database
from tests.jobs.platform_nights import (
    ANNA,
    BEN,
    CLEO,
    CLUBS,
    DAN,
    DAY,
    EVENTS,
    FIRST,
    HALLS,
    Platform,
)
from tests.jobs.scoring import PlatformHouse, SimpleHouse

from venue_analytics.demo.servers import PostgresServer


@pytest.fixture(scope="session")
def shared_database(
    postgres: PostgresServer, template: Callable[[str], str]
) -> Iterator[Callable[[str], Database]]:
    """Give the one database that all tests of an adapter share."""
    made: dict[str, Database] = {}

    def make(adapter: str) -> Database:
        if adapter not in made:
            name = f"scoring_{adapter}"
            with psycopg.connect(postgres.superuser_uri(), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER analytics_owner").format(
                        sql.Identifier(name), sql.Identifier(template(adapter))
                    )
                )
                # hundreds of small commits; what a crash would lose does not matter here
                connection.execute(
                    sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(
                        sql.Identifier(name)
                    )
                )
            made[adapter] = Database(postgres, name)
        return made[adapter]

    yield make
    with psycopg.connect(postgres.superuser_uri(), autocommit=True) as connection:
        for database in made.values():
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database.name))
            )


@pytest.fixture
def simple_house(
    shared_database: Callable[[str], Database], redis_client: redis.Redis
) -> Iterator[SimpleHouse]:
    """An empty database over the adapter `simple`'s tables, shared by the tests in turn."""
    with SimpleHouse(shared_database("simple"), redis_client) as house:
        house.clear()
        yield house


@pytest.fixture
def platform_house(
    shared_database: Callable[[str], Database], redis_client: redis.Redis
) -> Iterator[PlatformHouse]:
    """An empty database over the platform's tables, shared by the tests in turn."""
    with PlatformHouse(shared_database("platform"), redis_client) as house:
        house.clear()
        yield house


@pytest.fixture
def at(platform_house: PlatformHouse) -> Platform:
    """Two venues that have sold to four customers, and a third that has to one; scored once."""
    platform = Platform(platform_house)
    for buyer, days, amount in ((ANNA, 3, 4000), (BEN, 10, 3000), (CLEO, 15, 2000), (DAN, 20, 10)):
        for event in (HALLS, CLUBS):
            platform.buy(buyer, FIRST - days * DAY, amount, event=event)
    platform.buy(ANNA, FIRST - 3 * DAY, event=EVENTS[4])
    platform.night(FIRST)
    return platform
