"""A worker is killed or terminated in the middle of a long query, or while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
import redis
from tests.databases import Database
from tests.harness.faults.night import Night, wait_until
from tests.harness.faults.steps import NAP, NAPPING, napping
from tests.harness.faults.wires import Wires
from tests.harness.faults.worker import Order, Worker
from tests.harness.simple_venues import ARENA, BALLROOM

from venue_analytics.demo.servers import ValkeyServer
from venue_analytics.harness.leases import Holder, Leases

pytestmark = pytest.mark.one_version

#: The server notices a killed client by client_connection_check_interval, 1 s.
ORPHAN_SECONDS = 2.0
RETRY_SECONDS = 5.0
#: Airflow sends SIGKILL this long after SIGTERM.
SIGTERM_SECONDS = 5.0


@pytest.fixture
def night(
    two_venues: Callable[[], Database], redis_client: redis.Redis, valkey: ValkeyServer
) -> Night:
    """Return a night whose second step is a query of a minute."""
    database = two_venues()
    with database.superuser() as superuser:
        superuser.execute(NAP)
    return Night.plan(database, valkey.uri, NAPPING)


@pytest.mark.fault("retry-before-expiry")
def test_a_retry_takes_over_from_a_killed_worker_at_once(
    night: Night, undisturbed: dict[str, list[str]], new_worker: Callable[[Order], Worker]
) -> None:
    worker = new_worker(night.order)
    worker.start()
    with night.database.superuser() as superuser:
        wait_until(lambda: napping(superuser), within=10)
        superuser.execute("UPDATE nap SET seconds = 0")
        worker.kill()
        assert worker.exit_code() == -9

        began = time.monotonic()
        assert night.do(try_number=2) == []
        assert time.monotonic() - began < RETRY_SECONDS
        assert napping(superuser) == []
    first, *retried = night.attempts()
    took = max(row.finished_at for row in retried) - min(row.started_at for row in retried)
    assert took < timedelta(seconds=RETRY_SECONDS)
    assert (first.outcome, first.try_number) == ("running", 1)
    assert night.finish() == []
    assert night.outcomes() == ["failed", "succeeded"]
    assert night.kept() == undisturbed
    assert night.faults() == []


@pytest.mark.fault("retry-before-expiry")
def test_the_query_of_a_killed_worker_ends_by_itself(
    night: Night, new_worker: Callable[[Order], Worker]
) -> None:
    worker = new_worker(night.order)
    worker.start()
    with night.database.superuser() as superuser:
        wait_until(lambda: napping(superuser), within=10)
        worker.kill()
        wait_until(lambda: not napping(superuser), within=ORPHAN_SECONDS)


@pytest.mark.fault("clear-running")
@pytest.mark.parametrize("looks_for_client", ["1000", "0"], ids=["server-looks", "server-blind"])
def test_sigterm_in_a_long_query_leaves_nothing_behind(
    looks_for_client: str,
    night: Night,
    undisturbed: dict[str, list[str]],
    redis_client: redis.Redis,
    new_worker: Callable[[Order], Worker],
) -> None:
    worker = new_worker(night.order)
    with night.database.superuser() as superuser:
        superuser.execute("UPDATE nap SET looks_for_client = %s", [looks_for_client])
        worker.start()
        wait_until(lambda: napping(superuser), within=10)
        began = time.monotonic()
        worker.terminate()
        wait_until(lambda: not napping(superuser), within=1)
        assert worker.answer() == "stopped"
        assert time.monotonic() - began < SIGTERM_SECONDS
        assert redis_client.keys() == []
        (row,) = night.attempts()
        assert (row.outcome, row.error_type) == ("failed", "Stopped")
        assert night.kept()["ranked"] == []
        superuser.execute("UPDATE nap SET seconds = 0")
    assert night.do(try_number=2) == []
    assert night.finish() == []
    assert night.kept() == undisturbed
    assert night.faults() == []


@pytest.mark.fault("clear-running")
def test_sigterm_ends_a_worker_that_waits_for_a_lease(
    night: Night,
    redis_client: redis.Redis,
    valkey: ValkeyServer,
    new_worker: Callable[[Order], Worker],
) -> None:
    run = night.order.run
    rules_hash = night.order.settings.rules_hash()
    other = Holder(uuid4(), run.run_id, 0, 1, run.as_of, rules_hash, uuid4())
    held = {venue.id: other for venue in (ARENA, BALLROOM)}
    assert Leases(redis_client, run.job).take(held) == {}
    with Wires(night.database, valkey.port) as wires:
        worker = new_worker(night.through(wires))
        worker.start()
        wait_until(lambda: _asked(wires) > 2 * len(held), within=10)
        began = time.monotonic()
        worker.terminate()
        assert worker.answer() == "stopped"
        assert time.monotonic() - began < SIGTERM_SECONDS
    assert night.attempts() == []
    assert Leases(redis_client, run.job).are_held(held) == dict.fromkeys(held, True)


@pytest.mark.fault("clear-running")
def test_sigterm_ends_a_worker_that_waits_for_its_token(
    night: Night, redis_client: redis.Redis, new_worker: Callable[[Order], Worker]
) -> None:
    job = night.order.run.job
    with night.database.superuser() as holder, night.database.superuser() as superuser:
        with holder.transaction():
            holder.execute("INSERT INTO jobs.fence VALUES (%s, %s, 1)", [job, ARENA.id])
            worker = new_worker(night.order)
            worker.start()
            wait_until(lambda: _waiting_for_lock(superuser), within=10)
            began = time.monotonic()
            worker.terminate()
            assert worker.answer() == "stopped"
            assert time.monotonic() - began < SIGTERM_SECONDS
            wait_until(lambda: not _waiting_for_lock(superuser), within=ORPHAN_SECONDS)
        assert redis_client.keys() == []
        superuser.execute("UPDATE nap SET seconds = 0")
    assert [row.outcome for row in night.attempts()] == ["failed"]
    assert night.do(try_number=2) == []
    assert night.finish() == []
    assert night.faults() == []


def _waiting_for_lock(superuser: psycopg.Connection) -> bool:
    row = superuser.execute(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    return row != (0,)


def _asked(wires: Wires) -> int:
    return sum(message.text == "redis: take lease" for message in wires.messages)
