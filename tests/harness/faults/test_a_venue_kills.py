"""One of twenty venues kills its worker: only it fails, and none fails if it happens once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
import redis
from tests.databases import Database
from tests.harness.faults.night import Night
from tests.harness.faults.steps import DEADLY, DYING
from tests.harness.faults.worker import Order, Worker
from tests.harness.simple_venues import CUSTOMERS_EACH, NORTH, fill, scored_customers

from venue_analytics.demo.servers import ValkeyServer
from venue_analytics.harness import Unit

pytestmark = [
    pytest.mark.one_version,
    pytest.mark.fault("one-kills"),
]

TWENTY = tuple(Unit(UUID(int=n << 96), NORTH, f"Hall {n:02}") for n in range(1, 21))
KILLER = TWENTY[6]
TRIES = 4  # three retries
ALL_SCORED = {venue.name: CUSTOMERS_EACH for venue in TWENTY}


@pytest.fixture
def database(new_database: Callable[[str | None], Database]) -> Database:
    made = new_database("simple")
    with made.superuser() as superuser:
        fill(superuser, TWENTY)
        superuser.execute(DEADLY)
        superuser.execute("INSERT INTO deadly VALUES (%s)", [KILLER.id])
    return made


def tries(night: Night, new_worker: Callable[[Order], Worker], numbers: range) -> list[int | None]:
    """Run each try in its own process; return the exit codes."""
    codes = []
    for number in numbers:
        worker = new_worker(replace(night.order, try_number=number))
        worker.start()
        codes.append(worker.exit_code())
    return codes


def test_a_venue_that_kills_every_try_fails_and_the_other_nineteen_are_done(
    database: Database,
    redis_client: redis.Redis,
    valkey: ValkeyServer,
    new_worker: Callable[[Order], Worker],
) -> None:
    night = Night.plan(database, valkey.uri, DYING, together=True)
    assert tries(night, new_worker, range(1, TRIES + 1)) == [-9] * TRIES
    with database.superuser() as superuser:
        assert scored_customers(superuser) == {
            k: n for k, n in ALL_SCORED.items() if k != KILLER.name
        }
    (red,) = night.finish()
    assert red.startswith("Hall 07: ")
    attempts = [row.unit_name for row in night.attempts()]
    # all together, the first seven alone, then the others before the killer, then it alone
    assert attempts[20:] == [
        *(venue.name for venue in TWENTY[:7]),
        *(venue.name for venue in TWENTY[7:]),
        KILLER.name,
        KILLER.name,
    ]


def test_no_venue_fails_if_one_kills_its_worker_once(
    database: Database,
    redis_client: redis.Redis,
    valkey: ValkeyServer,
    new_worker: Callable[[Order], Worker],
) -> None:
    night = Night.plan(database, valkey.uri, DYING, together=True)
    assert tries(night, new_worker, range(1, 2)) == [-9]
    with database.superuser() as superuser:
        superuser.execute("DELETE FROM deadly")
        assert tries(night, new_worker, range(2, 3)) == [0]
        assert scored_customers(superuser) == ALL_SCORED
    assert night.finish() == []
    assert night.faults() == []
