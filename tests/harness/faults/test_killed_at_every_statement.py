"""`kill -9` at every message that a worker sends: after the retry nothing tells of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql
from tests.databases import Database
from tests.harness.faults.night import KEPT, Night
from tests.harness.faults.wires import Message, Wires
from tests.harness.faults.worker import Worker
from tests.harness.three_steps import THREE_STEPS

from venue_analytics.demo.servers import ValkeyServer
from venue_analytics.harness import Job
from venue_analytics.jobs.rfm_scoring import RFM_SCORING

pytestmark = [
    pytest.mark.one_version,
    pytest.mark.fault("killed-in-mid-run"),
]

DAY = timedelta(days=1)
HISTORY = ("jobs.venue_run", "jobs.checkpoint", "jobs.dead_letter", "jobs.batch", "jobs.run")
#: What must be among the messages at which the worker is killed: once, and once a venue.
OF_THE_BATCH = (
    "UPDATE jobs.batch SET round",
    "UPDATE jobs.batch SET ended_well_at_clear",
    "close the connection",
)
OF_EACH_VENUE = (
    "redis: take lease",
    "INSERT INTO jobs.fence",
    "redis: GET",
    "INSERT INTO jobs.venue_run",
    "BEGIN",
    "FROM jobs.enter(",
    "LEFT JOIN jobs.checkpoint",
    "UPDATE jobs.venue_run AS r SET outcome",
    "DELETE FROM jobs.checkpoint",
    "UPDATE jobs.dead_letter",
    "COMMIT",
    "redis: release lease",
)
OF_THIS_JOB = {
    "rfm_scoring": (
        "INSERT INTO public.venue_rfm_state",
        "public.customer_rfm_state",
        "INSERT INTO public.customer_segments",
        "UPDATE public.venue_rfm_state AS s SET (as_of",
    ),
    "three_steps": (
        "INSERT INTO walk",
        "INSERT INTO counted",
        "INSERT INTO ranked",
        "INSERT INTO published",
        "INSERT INTO jobs.checkpoint",
    ),
}


@pytest.mark.parametrize(
    ("job", "answered"),
    [
        pytest.param(THREE_STEPS, False, id="three_steps-unsent"),
        pytest.param(THREE_STEPS, True, id="three_steps-unanswered", marks=pytest.mark.deep),
        pytest.param(RFM_SCORING, False, id="rfm_scoring-unsent"),
        pytest.param(RFM_SCORING, True, id="rfm_scoring-unanswered", marks=pytest.mark.deep),
    ],
)
def test_a_worker_may_be_killed_at_any_message(
    job: Job[Any],
    answered: bool,
    two_venues: Callable[[], Database],
    redis_client: redis.Redis,
    valkey: ValkeyServer,
    new_worker: Callable[..., Worker],
    pytestconfig: pytest.Config,
) -> None:
    database = two_venues()
    with database.superuser() as superuser:

        def plan_anew() -> Night:
            redis_client.flushall()
            _delete(superuser, [*HISTORY, *KEPT[job.name], "walk"])
            return Night.plan(database, valkey.uri, job, together=job is RFM_SCORING)

        # of a group each is sent once, in its transaction or before
        times = 1 if job is RFM_SCORING else 2
        kinds = ((1, OF_THE_BATCH), (times, OF_EACH_VENUE + OF_THIS_JOB[job.name]))
        every = 1 if pytestconfig.getoption("deep") else 4
        _kill_at_messages(plan_anew, kinds, new_worker, answered, every)


def _kill_at_messages(
    plan_anew: Callable[[], Night],
    kinds: tuple[tuple[int, tuple[str, ...]], ...],
    new_worker: Callable[..., Worker],
    answered: bool,
    every: int,
) -> None:
    """Run a night undisturbed; then again and again, and kill it at messages so far apart."""
    faults: list[str] = []
    undisturbed, sent = _run_undisturbed(plan_anew(), new_worker)
    texts = [message.text for message in sent]
    for times, texts_of_kind in kinds:
        for kind in texts_of_kind:
            count = sum(kind in text for text in texts)
            assert count >= times, f"{kind} was sent {count} times: {texts}"
    # nothing answers the last one, which closes the connection
    for message in (sent[:-1] if answered else sent)[::every]:
        night = plan_anew()
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
        found += night.do(try_number=2) + night.finish() + night.faults()
        if night.kept() != undisturbed:
            found.append(f"kept: {night.kept()}")
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


def _delete(superuser: psycopg.Connection, tables: list[str]) -> None:
    """Take results and history away; the source and the fences stay."""
    superuser.execute(
        sql.SQL("; ").join(
            sql.SQL("DELETE FROM {}").format(sql.Identifier(*table.split("."))) for table in tables
        )
    )
