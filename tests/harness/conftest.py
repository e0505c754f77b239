"""Fixtures that the harness's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from tests.databases import Database
from tests.harness.nights import NAME, Night
from tests.harness.runner import Runner
from tests.harness.simple_venues import fill

from venue_analytics.harness.leases import Leases


@pytest.fixture
def night(simple: Database, redis_client: redis.Redis) -> Iterator[Night]:
    """Yield nights of a job that does nothing, with an empty history."""
    with simple.jobs() as connection:
        yield Night.of(simple, connection, Leases(redis_client, NAME))


@pytest.fixture
def runner(simple: Database, redis_client: redis.Redis) -> Iterator[Runner]:
    """Yield a runner of jobs over four venues of two tenants."""
    with simple.superuser() as superuser:
        fill(superuser)
    with simple.jobs() as connection:
        yield Runner(simple, connection, redis_client)
