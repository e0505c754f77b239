"""Redis dies, forgets or hangs in mid-run: there are never two writers, and the retry succeeds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from tests.databases import Database
from tests.harness.faults.night import Night, tokens_that_do_not_rise, wait_until
from tests.harness.faults.steps import once
from tests.harness.three_steps import THREE_STEPS, Run

from venue_analytics.demo.servers import ValkeyServer, free_port
from venue_analytics.harness import redis_server
from venue_analytics.harness.redis_server import RedisAddress

pytestmark = pytest.mark.one_version

UNREACHABLE = "Redis does not answer"


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Yield a server that the test may kill; it restarts on the same port."""
    with ValkeyServer(tmp_path, free_port()) as server:
        yield server


@pytest.fixture
def undisturbed(
    two_venues: Callable[[], Database], own_valkey: ValkeyServer
) -> dict[str, list[str]]:
    night = Night.plan(two_venues(), own_valkey.uri, THREE_STEPS)
    assert night.do() == []
    return night.kept()


def kill(server: ValkeyServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.running, within=5)


def restart_empty(server: ValkeyServer) -> None:
    kill(server)
    server.start()


def flush(server: ValkeyServer) -> None:
    with RedisAddress.parse(server.uri, name="the test's Redis").client() as client:
        client.flushall()


def is_right(night: Night, undisturbed: dict[str, list[str]]) -> bool:
    assert night.finish() == []
    assert night.faults() == []
    assert tokens_that_do_not_rise(night.attempts()) == []
    assert night.kept() == undisturbed
    return True


@pytest.mark.parametrize(
    "forget",
    [
        pytest.param(flush, marks=pytest.mark.fault("redis-flushed")),
        pytest.param(restart_empty, marks=pytest.mark.fault("redis-restarted-empty")),
    ],
)
def test_two_workers_that_both_believe_they_hold_the_lease_never_write_at_once(
    forget: Callable[[ValkeyServer], None],
    two_venues: Callable[[], Database],
    own_valkey: ValkeyServer,
    undisturbed: dict[str, list[str]],
) -> None:
    database = two_venues()
    night, rival = (Night.plan(database, own_valkey.uri, THREE_STEPS) for _ in range(2))
    rivals: list[Future[list[str]]] = []

    def let_a_rival_in(_: Run) -> None:
        forget(own_valkey)
        rivals.append(threads.submit(rival.do, job=once(lambda _: None)))
        with database.superuser() as superuser:
            wait_until(
                lambda: superuser.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                    "AND datname = current_database() AND query LIKE '%INSERT INTO jobs.fence%'"
                ).fetchone(),
                within=10,
            )

    with ThreadPoolExecutor() as threads:
        (failure,) = night.do(job=once(let_a_rival_in))
        assert rivals[0].result() == []
    assert failure.startswith("Arena: another attempt has taken over")
    assert night.do(try_number=2) == []
    assert night.outcomes() == ["failed", "skipped: already done"]
    assert rival.outcomes() == ["succeeded"]
    assert rival.finish() == []
    assert is_right(night, undisturbed)


@pytest.mark.parametrize(
    "forget",
    [
        pytest.param(flush, marks=pytest.mark.fault("redis-flushed")),
        pytest.param(restart_empty, marks=pytest.mark.fault("redis-restarted-empty")),
    ],
)
def test_a_single_worker_is_not_disturbed_when_redis_forgets(
    forget: Callable[[ValkeyServer], None],
    two_venues: Callable[[], Database],
    own_valkey: ValkeyServer,
    undisturbed: dict[str, list[str]],
) -> None:
    night = Night.plan(two_venues(), own_valkey.uri, THREE_STEPS)
    assert night.do(job=once(lambda _: forget(own_valkey))) == []
    assert is_right(night, undisturbed)


@pytest.mark.fault("redis-killed")
def test_when_redis_is_killed_the_running_venue_is_done_and_no_other_starts(
    two_venues: Callable[[], Database],
    own_valkey: ValkeyServer,
    undisturbed: dict[str, list[str]],
) -> None:
    night = Night.plan(two_venues(), own_valkey.uri, THREE_STEPS)
    (failure,) = night.do(job=once(lambda _: kill(own_valkey)))
    assert failure.startswith(f"Ballroom: {UNREACHABLE}")
    assert night.outcomes("Arena") == ["succeeded"]
    assert night.outcomes("Ballroom") == ["failed"]
    own_valkey.start()
    assert night.do(try_number=2) == []
    assert is_right(night, undisturbed)


@pytest.mark.fault("redis-killed")
def test_no_transaction_is_opened_if_the_lease_expired_while_redis_was_gone(
    two_venues: Callable[[], Database],
    own_valkey: ValkeyServer,
    undisturbed: dict[str, list[str]],
) -> None:
    night = Night.plan(
        two_venues(),
        own_valkey.uri,
        THREE_STEPS,
        lease=timedelta(seconds=0.5),
        renew_every=timedelta(seconds=0.1),
    )

    def kill_and_take_longer_than_the_lease(run: Run) -> None:
        kill(own_valkey)
        run.connection.execute("SELECT pg_sleep(0.6)")

    failures = night.do(job=once(kill_and_take_longer_than_the_lease))
    assert [failure.split(" (")[0].split(": Error")[0] for failure in failures] == [
        f"Arena: {UNREACHABLE}",
        f"Ballroom: {UNREACHABLE}",
    ]
    with night.database.superuser() as superuser:
        walked = superuser.execute("SELECT step, piece FROM walk").fetchall()
    assert walked == [("count", 0)]
    own_valkey.start()
    assert night.do(try_number=2) == []
    assert is_right(night, undisturbed)


@pytest.mark.fault("redis-killed")
def test_nothing_is_processed_without_redis(
    two_venues: Callable[[], Database],
    own_valkey: ValkeyServer,
    undisturbed: dict[str, list[str]],
) -> None:
    night = Night.plan(two_venues(), own_valkey.uri, THREE_STEPS)
    kill(own_valkey)
    failures = night.do()
    assert [failure.split(": Error")[0] for failure in failures] == [
        f"Arena: {UNREACHABLE}",
        f"Ballroom: {UNREACHABLE}",
    ]
    assert not any(night.kept().values())
    assert [
        (row.outcome, row.error_type, row.token, row.permanent) for row in night.attempts()
    ] == [("failed", "TransientError", None, False)] * 2
    own_valkey.start()
    assert night.do(try_number=2) == []
    assert is_right(night, undisturbed)


@pytest.mark.fault("redis-killed")
def test_a_redis_that_hangs_is_reported_after_a_timeout(
    two_venues: Callable[[], Database],
    own_valkey: ValkeyServer,
    undisturbed: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    night = Night.plan(two_venues(), own_valkey.uri, THREE_STEPS)
    monkeypatch.setattr(redis_server, "TIMEOUT_SECONDS", 0.3)
    assert own_valkey.pid is not None
    os.kill(own_valkey.pid, signal.SIGSTOP)
    began = time.monotonic()
    failures = night.do()
    os.kill(own_valkey.pid, signal.SIGCONT)
    assert time.monotonic() - began < 3
    assert len(failures) == 2
    assert all(UNREACHABLE in failure and "TimeoutError" in failure for failure in failures)
    assert not any(night.kept().values())
    # Redis may now run the commands that it got while it hung; the retry takes those leases over
    assert night.do(try_number=2) == []
    assert is_right(night, undisturbed)
