"""Databases that the tests of one job share, emptied before each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from tests.databases import Database
from tests.jobs.rfm_scoring.platform_nights import (
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
from tests.jobs.rfm_scoring.scoring import PlatformHouse, SimpleHouse


@pytest.fixture
def simple_house(
    shared_database: Callable[[str], Database], redis_client: redis.Redis
) -> Iterator[SimpleHouse]:
    """Yield an empty database over the tables of the adapter `simple`, shared by the tests."""
    with SimpleHouse(shared_database("simple"), redis_client) as house:
        house.clear()
        yield house


@pytest.fixture
def platform_house(
    shared_database: Callable[[str], Database], redis_client: redis.Redis
) -> Iterator[PlatformHouse]:
    """Yield an empty database over the platform's tables, shared by the tests."""
    with PlatformHouse(shared_database("platform"), redis_client) as house:
        house.clear()
        yield house


@pytest.fixture
def at(platform_house: PlatformHouse) -> Platform:
    """Return a platform scored once: two venues sold to four customers, and a third to one."""
    platform = Platform(platform_house)
    for buyer, days, amount in ((ANNA, 3, 4000), (BEN, 10, 3000), (CLEO, 15, 2000), (DAN, 20, 10)):
        for event in (HALLS, CLUBS):
            platform.buy(buyer, FIRST - days * DAY, amount, event=event)
    platform.buy(ANNA, FIRST - 3 * DAY, event=EVENTS[4])
    platform.night(FIRST)
    return platform
