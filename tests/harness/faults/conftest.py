"""Workers for the tests of dying processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from tests.databases import Database
from tests.harness import three_steps
from tests.harness.faults.night import Night
from tests.harness.faults.worker import FORKED, Order, Worker
from tests.harness.simple_venues import ARENA, BALLROOM, fill
from tests.harness.three_steps import THREE_STEPS

from venue_analytics.demo.servers import ValkeyServer

ROOT = str(Path(__file__).parents[3])


@pytest.fixture(scope="session", autouse=True)
def workers_can_import_the_tests() -> Iterator[None]:
    """Let the process that workers are forked from import the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        patch.setenv("PYTHONPATH", ROOT, prepend=os.pathsep)
        FORKED.set_forkserver_preload(
            [
                "pytest",
                "redis",
                "tests.harness.faults.worker",
                "tests.harness.three_steps",
                "venue_analytics.jobs.rfm_scoring",
            ]
        )
        yield


@pytest.fixture
def new_worker() -> Iterator[Callable[[Order], Worker]]:
    """Yield a maker of workers, none of which outlives the test."""
    made: list[Worker] = []

    def make(order: Order) -> Worker:
        worker = Worker(order)
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.clear_away()


@pytest.fixture
def two_venues(new_database: Callable[[str | None], Database]) -> Callable[[], Database]:
    """Return a maker of databases with two venues of one tenant and the three steps' tables."""

    def make() -> Database:
        database = new_database("simple")
        with database.superuser() as superuser:
            fill(superuser, (ARENA, BALLROOM))
            superuser.execute(three_steps.TABLES)
        return database

    return make


@pytest.fixture
def undisturbed(
    two_venues: Callable[[], Database], redis_client: redis.Redis, valkey: ValkeyServer
) -> dict[str, list[str]]:
    """Return the results of a night without faults."""
    night = Night.plan(two_venues(), valkey.uri, THREE_STEPS)
    assert night.do() == []
    return night.kept()
