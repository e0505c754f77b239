"""`kill -9` at every message that a worker sends: after the retry the results are the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
import redis
from psycopg import sql
from tests.databases import Database
from tests.harness.faults.night import Night, tables_of
from tests.harness.faults.wires import Message, Wires
from tests.harness.faults.worker import Worker
from tests.harness.three_steps import THREE_STEPS
from tests.jobs.facts import facts_of

from venue_analytics.demo.servers import ValkeyServer
from venue_analytics.harness import Grouped
from venue_analytics.jobs import JOBS

pytestmark = [
    pytest.mark.one_version,
    pytest.mark.fault("killed-in-mid-run"),
]

DAY = timedelta(days=1)
HISTORY = ("jobs.unit_run", "jobs.checkpoint", "jobs.dead_letter", "jobs.batch", "jobs.run")
#: The messages at which the worker must be killed: once, and once per venue.
OF_THE_BATCH = (
    "UPDATE jobs.batch SET round",
    "UPDATE jobs.batch SET ended_well_at_clear",
    "close the connection",
)
OF_EACH_UNIT = (
    "redis: take lease",
    "INSERT INTO jobs.fence",
    "redis: GET",
    "INSERT INTO jobs.unit_run",
    "BEGIN",
    "FROM jobs.enter(",
    "LEFT JOIN jobs.checkpoint",
    "UPDATE jobs.unit_run AS r SET outcome",
    "DELETE FROM jobs.checkpoint",
    "UPDATE jobs.dead_letter",
    "COMMIT",
    "redis: release lease",
)
OF_THREE_STEPS = (
    "INSERT INTO walk",
    "INSERT INTO counted",
    "INSERT INTO ranked",
    "INSERT INTO published",
    "INSERT INTO jobs.checkpoint",
)


@pytest.mark.parametrize(
    "answered", [False, pytest.param(True, marks=pytest.mark.deep)], ids=["unsent", "unanswered"]
)
@pytest.mark.parametrize("job", [THREE_STEPS.name, *JOBS])
def test_a_worker_may_be_killed_at_any_message(
    job: str,
    answered: bool,
    two_venues: Callable[[], Database],
    redis_client: redis.Redis,
    valkey: ValkeyServer,
    new_worker: Callable[..., Worker],
    pytestconfig: pytest.Config,
) -> None:
    killed = THREE_STEPS if job == THREE_STEPS.name else JOBS[job]
    of_this_job = OF_THREE_STEPS if killed is THREE_STEPS else facts_of(job).messages
    takes_groups = any(isinstance(step, Grouped) for step in killed.steps.values())
    database = two_venues()
    with database.superuser() as superuser:

        def new_night() -> Night:
            redis_client.flushall()
            delete(superuser, [*HISTORY, *tables_of(job), "walk"])
            return Night.plan(database, valkey.uri, killed, together=takes_groups)

        # for a group each is sent once, in its transaction or before
        kinds = ((1, OF_THE_BATCH), (1 if takes_groups else 2, OF_EACH_UNIT + of_this_job))
        every = 1 if pytestconfig.getoption("deep") else 4
        kill_at_messages(new_night, kinds, new_worker, answered, every, _faults)


def _faults(night: Night, undisturbed: dict[str, list[str]]) -> list[str]:
    """Return the differences from an undisturbed night."""
    faults = night.faults()
    if night.kept() != undisturbed:
        faults.append(f"kept: {night.kept()}")
    return faults


def kill_at_messages(
    new_night: Callable[[], Night],
    kinds: tuple[tuple[int, tuple[str, ...]], ...],
    new_worker: Callable[..., Worker],
    answered: bool,
    every: int,
    faults_of: Callable[[Night, dict[str, list[str]]], list[str]],
) -> None:
    """Run a night undisturbed, then once for each message, and kill its worker at that message.

    Args:
        new_night: plans a night with an empty history.
        kinds: parts of messages, and how often each must occur in a night.
        new_worker: makes a process.
        answered: whether the worker dies before the answer arrives, not before the message.
        every: 1 kills at each message, 4 at every fourth.
        faults_of: returns what is wrong after the retry, compared with the undisturbed night.
    """
    faults: list[str] = []
    undisturbed, sent = _run_undisturbed(new_night(), new_worker)
    texts = [message.text for message in sent]
    for times, texts_of_kind in kinds:
        for kind in texts_of_kind:
            count = sum(kind in text for text in texts)
            assert count >= times, f"{kind} was sent {count} times: {texts}"
    # the last message closes the connection and has no answer
    for message in (sent[:-1] if answered else sent)[::every]:
        night = new_night()
        with Wires(night.database, night.redis_port) as wires:
            worker = new_worker(night.through(wires))
            number = message.number
            wires.cut_at(lambda m, n=number: m.number == n, worker.kill, answered=answered)
            worker.start()
            exit_code = worker.exit_code()
            found = [] if exit_code == -9 else [f"the worker ended with {exit_code}"]
            if wires.messages != sent[:number]:
                found.append(f"the worker had sent {wires.messages[-1]}")
        worker.clear_away()
        found += night.do(try_number=2) + night.finish() + faults_of(night, undisturbed)
        faults += [f"killed at {message}: {fault}" for fault in found]
    assert not faults, "\n".join(faults)


def _run_undisturbed(
    night: Night, new_worker: Callable[..., Worker]
) -> tuple[dict[str, list[str]], list[Message]]:
    with Wires(night.database, night.redis_port) as wires:
        worker = new_worker(night.through(wires))
        worker.start()
        assert worker.answer() == []
    assert night.finish() == []
    assert night.faults() == []
    kept = night.kept()
    assert any(kept.values())
    return kept, wires.messages


def delete(superuser: psycopg.Connection, tables: list[str]) -> None:
    """Delete results and history; keep the source and the fences."""
    superuser.execute(
        sql.SQL("; ").join(
            sql.SQL("DELETE FROM {}").format(sql.Identifier(*table.split("."))) for table in tables
        )
    )
