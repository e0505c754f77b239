"""A worker sleeps past its lease and wakes after another worker has done the venue."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
import redis
from tests.databases import Database
from tests.harness.faults.night import AS_OF, Night, wait_until
from tests.harness.faults.wires import Message, Wires
from tests.harness.faults.worker import Order, Worker
from tests.harness.simple_venues import ARENA
from tests.harness.three_steps import THREE_STEPS

from venue_analytics.demo.servers import ValkeyServer
from venue_analytics.harness.leases import Holder, Leases

pytestmark = [
    pytest.mark.one_version,
    pytest.mark.fault("paused"),
]

LEASE = timedelta(seconds=1)
RENEWAL = timedelta(seconds=0.3)
#: In addition to the lease: the rival looks every quarter of a second, and then works.
TOLERANCE_SECONDS = 1.0
TAKEN_OVER = "Arena: another attempt has taken over"
#: The message that the worker is about to send when it is paused: the first, or the second BEGIN.
MOMENTS = {
    "between lease and token": "INSERT INTO jobs.fence",
    "between token and history row": "INSERT INTO jobs.unit_run",
    "between enter and commit": "INSERT INTO counted",
    "between two steps": "BEGIN",
}


@pytest.mark.parametrize("rival_as_of", [AS_OF, AS_OF + timedelta(days=1)], ids=["same", "other"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_that_wakes_after_its_lease_writes_nothing(
    moment: str,
    rival_as_of: datetime,
    two_venues: Callable[[], Database],
    redis_client: redis.Redis,
    valkey: ValkeyServer,
    new_worker: Callable[[Order], Worker],
) -> None:
    undisturbed = Night.plan(two_venues(), valkey.uri, THREE_STEPS, as_of=rival_as_of)
    assert undisturbed.do() == []
    database = two_venues()
    night, rival = (
        Night.plan(database, valkey.uri, THREE_STEPS, as_of=as_of, lease=LEASE, renew_every=RENEWAL)
        for as_of in (AS_OF, rival_as_of)
    )
    with Wires(database, valkey.port) as wires:

        def is_the_moment(message: Message) -> bool:
            times = sum(MOMENTS[moment] in sent.text for sent in wires.messages)
            return MOMENTS[moment] in message.text and times == 1 + (moment == "between two steps")

        worker = new_worker(night.through(wires))
        hold = wires.hold_at(is_the_moment, worker.pause)
        worker.start()
        hold.wait()
        began = time.monotonic()
        assert rival.do() == []
        assert time.monotonic() - began < LEASE.total_seconds() + TOLERANCE_SECONDS
        assert rival.kept() == undisturbed.kept()
        worker.wake()
        hold.let_go()
        failures = worker.answer()

    how = "already done" if rival_as_of == AS_OF else "newer results stand"
    if moment == "between lease and token":
        # its token is the newest, but it checks the lease and takes it again
        assert failures == []
        (only,) = night.outcomes()
        assert only.startswith(f"skipped: {how}")
    else:
        (failure,) = failures
        if moment == "between enter and commit":
            # it slept holding the fence, so the server ended its transaction
            assert "IdleInTransactionSessionTimeout" in failure
        else:
            assert failure.startswith(TAKEN_OVER)
        assert night.do(try_number=2) == []
        failed, skipped = night.outcomes()
        assert failed == "failed"
        assert skipped.startswith(f"skipped: {how}")
    assert rival.outcomes() == ["succeeded"]
    assert rival.kept() == undisturbed.kept()
    assert night.finish() == rival.finish() == []
    assert night.faults() == []


def test_a_worker_that_lost_its_lease_before_it_had_a_token_starts_over(
    two_venues: Callable[[], Database],
    redis_client: redis.Redis,
    valkey: ValkeyServer,
    new_worker: Callable[[Order], Worker],
) -> None:
    database = two_venues()
    night = Night.plan(database, valkey.uri, THREE_STEPS, lease=LEASE, renew_every=RENEWAL)
    run = night.order.run
    leases = Leases(redis_client, run.job)
    rules_hash = night.order.settings.rules_hash()
    rival = {ARENA.id: Holder(uuid4(), run.run_id, 0, 1, run.as_of, rules_hash, uuid4())}
    with Wires(database, valkey.port) as wires:
        worker = new_worker(night.through(wires))
        hold = wires.hold_at(lambda message: "INSERT INTO jobs.fence" in message.text, worker.pause)
        worker.start()
        hold.wait()
        wait_until(lambda: leases.take(rival) == {}, within=LEASE.total_seconds() + 1)
        worker.wake()
        hold.let_go()
        # it finds that the lease is not its own, does the other venue, and waits
        wait_until(lambda: night.outcomes("Ballroom") == ["succeeded"], within=10)
        assert night.outcomes("Arena") == []
        leases.release(rival)
        assert worker.answer() == []
    assert night.outcomes("Arena") == ["succeeded"]
    assert night.finish() == []
    assert night.faults() == []
