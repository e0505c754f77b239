"""Fixtures that the harness's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from tests.databases import Database
from tests.harness.nights import NAME, Night

from venue_analytics.harness.leases import Leases


@pytest.fixture
def night(simple: Database, redis_client: redis.Redis) -> Iterator[Night]:
    """Nights of a job that does nothing, over an empty history."""
    with simple.jobs() as connection:
        yield Night.of(simple, connection, Leases(redis_client, NAME))
