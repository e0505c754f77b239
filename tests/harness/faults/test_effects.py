"""A worker dies, sleeps or is stopped during an action: no action is performed twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from tests.databases import Database
from tests.harness.faults.night import Night, wait_until
from tests.harness.faults.wires import Wires
from tests.harness.faults.worker import Order, Worker
from tests.harness.mails import MAILS, TABLES, Office

from venue_analytics.demo.servers import ValkeyServer

pytestmark = pytest.mark.one_version

LEASE = timedelta(seconds=1)
RENEWAL = timedelta(seconds=0.3)
#: In addition to the lease: a rival looks every quarter of a second, and then works.
TOLERANCE_SECONDS = 1.5
CLAIM = "INSERT INTO jobs.action"
RECORD = "UPDATE jobs.action SET state = 'done'"
TABLES_OF_A_NIGHT = (
    "wanted, kept, jobs.action, jobs.dead_letter_payload, jobs.dead_letter, jobs.unit_run, "
    "jobs.checkpoint, jobs.batch, jobs.run"
)


@pytest.fixture
def database(two_venues: Callable[[], Database], redis_client: redis.Redis) -> Database:
    """Return a database of two venues with the tables of the mails."""
    made = two_venues()
    with made.superuser() as superuser:
        superuser.execute(TABLES)
    return made


@pytest.fixture
def office(database: Database, tmp_path: Path) -> Iterator[Office]:
    with database.superuser() as superuser:
        yield Office(superuser, tmp_path / "outbox")


@pytest.mark.fault("killed-in-an-effect")
def test_after_a_kill_in_an_action_it_has_a_letter_and_the_rest_is_performed(
    database: Database, office: Office, valkey: ValkeyServer, new_worker: Callable[[Order], Worker]
) -> None:
    office.want("a", "c")
    office.want("b", mood="kills")
    night = Night.plan(database, valkey.uri, MAILS)
    worker = new_worker(night.order)
    worker.start()
    assert worker.exit_code() == -9
    assert office.sent() == ["a", "b"]
    assert office.states() == {"a": "done", "b": "claimed"}
    assert night.do(try_number=2) == []
    assert night.finish() == []
    assert office.sent() == ["a", "b", "c"]
    assert office.kept() == ["a", "c"]
    assert office.states() == {"a": "done", "b": "unknown", "c": "done"}
    assert office.letters() == {"b": "open"}


@pytest.mark.fault("killed-in-an-effect")
@pytest.mark.parametrize(
    "answered", [False, pytest.param(True, marks=pytest.mark.deep)], ids=["unsent", "unanswered"]
)
def test_a_worker_may_be_killed_at_any_message_from_the_claim_to_the_record(
    answered: bool,
    database: Database,
    office: Office,
    redis_client: redis.Redis,
    valkey: ValkeyServer,
    new_worker: Callable[[Order], Worker],
) -> None:
    def new_night() -> Night:
        office.outbox.unlink(missing_ok=True)
        redis_client.flushall()
        office.superuser.execute(f"TRUNCATE {TABLES_OF_A_NIGHT}")
        office.want("a", "b")
        return Night.plan(database, valkey.uri, MAILS)

    night = new_night()
    with Wires(database, night.redis_port) as wires:
        worker = new_worker(night.through(wires))
        worker.start()
        assert worker.answer() == []
    messages = wires.messages
    # from the BEGIN of the first claim to its record, and to the next claim
    first, second = (message.number for message in messages if CLAIM in message.text)
    numbers = range(first - 2, second + 1)
    assert messages[numbers[0] - 1].text.startswith("BEGIN")
    assert any(RECORD in messages[number - 1].text for number in numbers)

    faults, ends = [], set()
    for number in numbers:
        night = new_night()
        with Wires(database, night.redis_port) as wires:
            worker = new_worker(night.through(wires))
            wires.cut_at(lambda m, n=number: m.number == n, worker.kill, answered=answered)
            worker.start()
            found = [] if worker.exit_code() == -9 else ["the worker was not killed"]
        worker.clear_away()
        found += night.do(try_number=2) + night.finish()
        states, sent = office.states(), office.sent()
        ends.add(states["a"])
        if len(set(sent)) < len(sent):
            found.append(f"sent twice: {sent}")
        for key in ("a", "b"):
            # performed and recorded, or of unknown outcome with an open letter
            done = (states.get(key), key in sent, key in office.kept(), office.letters().get(key))
            is_unknown = states.get(key) == "unknown" and done[2:] == (False, "open")
            if not is_unknown and done != ("done", True, True, None):
                found.append(f"{key}: {done}")
        faults += [f"killed at {messages[number - 1]}: {fault}" for fault in found]
    assert not faults, "\n".join(faults)
    assert ends == {"done", "unknown"}


@pytest.mark.fault("killed-in-an-effect")
def test_sigterm_in_an_action_stops_a_worker_and_the_action_is_not_repeated(
    database: Database,
    office: Office,
    redis_client: redis.Redis,
    valkey: ValkeyServer,
    new_worker: Callable[[Order], Worker],
) -> None:
    office.want("a", mood="waits")
    office.want("b")
    night = Night.plan(database, valkey.uri, MAILS)
    worker = new_worker(night.order)
    worker.start()
    wait_until(lambda: office.sent() == ["a"], within=10)
    worker.terminate()
    assert worker.answer() == "stopped"
    assert redis_client.keys() == []
    (row,) = [row for row in night.attempts() if row.unit_name == "Arena"]
    assert (row.outcome, row.error_type) == ("failed", "Stopped")
    assert night.do(try_number=2) == []
    assert night.finish() == []
    assert office.sent() == ["a", "b"]
    assert office.kept() == ["b"]
    assert (office.states(), office.letters()) == ({"a": "unknown", "b": "done"}, {"a": "open"})


@pytest.mark.fault("killed-in-an-effect")
def test_a_worker_that_slept_in_an_action_records_it_on_waking_and_resolves_its_letter(
    database: Database, office: Office, valkey: ValkeyServer, new_worker: Callable[[Order], Worker]
) -> None:
    office.want("a", mood="waits")
    office.want("b")
    night, rival = (
        Night.plan(database, valkey.uri, MAILS, lease=LEASE, renew_every=RENEWAL) for _ in range(2)
    )
    worker = new_worker(night.order)
    worker.start()
    wait_until(lambda: office.sent() == ["a"], within=10)
    worker.pause()
    assert rival.do() == []
    assert (office.states(), office.letters()) == ({"a": "unknown", "b": "done"}, {"a": "open"})
    office.answer()
    worker.wake()
    (failure,) = worker.answer()
    assert failure.startswith("Arena: ")
    assert "taken over" in failure
    assert office.sent() == office.kept() == ["a", "b"]
    assert (office.states(), office.letters()) == ({"a": "done", "b": "done"}, {"a": "resolved"})
    assert night.do(try_number=2) == []
    assert night.finish() == rival.finish() == []
    assert night.faults() == []
