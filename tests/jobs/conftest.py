"""Databases that the tests of one job share, emptied before each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from tests.databases import Database
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
