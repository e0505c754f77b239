"""Tasks and runs are stopped in the middle: by a click, by a timeout, or by the kernel."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import psycopg
import pytest
import redis
from tests.dags.scheduler.history import History, held
from tests.dags.scheduler.stack import JOB, Stack
from tests.databases import Database
from tests.harness.simple_venues import ARENA, CELLAR, CUSTOMERS_EACH, fill

#: Airflow sends SIGKILL five seconds after SIGTERM; the lease must be free by then.
FREE_WITHIN_SECONDS = 5.0
BOTH = (ARENA, CELLAR)
ALL_SCORED = {"Arena": CUSTOMERS_EACH, "Cellar": CUSTOMERS_EACH}
ARENAS_TASK = "score/0"


class Lease:
    """The lease of the Arena."""

    def __init__(self, client: redis.Redis, job: str) -> None:
        self._client = client
        self._key = f"venue_analytics:lease:{job}:{ARENA.id}"

    def text(self) -> bytes | None:
        """Return its value; None if it is free."""
        found = self._client.get(self._key)
        assert found is None or isinstance(found, bytes)
        return found

    def seconds_until_released(self, stack: Stack, text: bytes) -> float:
        """Wait until it no longer has this value; return the seconds that took."""
        began = time.monotonic()
        stack.wait("the lease's release", lambda: self.text() != text)
        return time.monotonic() - began


def stopped(stack: Stack, history: History, run_id: str) -> None:
    """Wait until the attempt at the Arena has ended; else it would go on once the venue is free."""
    stack.wait("the end of the attempt", lambda: history.reasons(run_id)["Arena"] != "running")


def at_work(stack: Stack, history: History) -> datetime:
    """Wait until a query works on the held venue; return when it began."""
    ((_, began),) = stack.wait("a query at the Arena", history.waiting_queries)
    assert isinstance(began, datetime)
    return began


def tries(stack: Stack, dag_id: str, run_id: str) -> list[tuple[int, float | None]]:
    """Return the number and the retry delay of each retried try of the Arena's task."""
    return stack.metadata.execute(
        "SELECT try_number, retry_delay_override FROM task_instance_history "
        "WHERE dag_id = %s AND run_id = %s AND task_id = 'score' AND map_index = 0 "
        "ORDER BY try_number",
        [dag_id, run_id],
    ).fetchall()


@pytest.mark.fault("clear-running")
def test_a_running_task_that_is_cleared_releases_its_lease_and_starts_over(
    stack: Stack, database: Database, history: History, redis_client: redis.Redis
) -> None:
    fill(history.superuser, BOTH)
    lease = Lease(redis_client, JOB)
    with held(database, ARENA):
        run_id = stack.trigger()
        at_work(stack, history)
        first = lease.text()
        assert first is not None
        stack.clear(JOB, run_id, only_failed=False, task_ids=[["score", 0]])
        assert lease.seconds_until_released(stack, first) < FREE_WITHIN_SECONDS
        stack.wait("the row's end", lambda: ("Arena", "failed") in history.attempts(run_id))
        assert history.reasons(run_id)["Arena"] == "failed: stopped by SIGTERM"
        assert history.scored() == {"Cellar": CUSTOMERS_EACH}
        stack.wait("the next try at the Arena", lambda: lease.text() not in (None, first))
    assert stack.ended(run_id).state == "success"
    assert [outcome for name, outcome in history.attempts(run_id) if name == "Arena"] == [
        "failed",
        "succeeded",
    ]
    assert history.scored() == ALL_SCORED


@pytest.mark.fault("mark-failed-running")
@pytest.mark.deep
def test_a_running_task_that_is_marked_failed_releases_its_lease_and_is_named(
    stack: Stack, database: Database, history: History, redis_client: redis.Redis
) -> None:
    fill(history.superuser, BOTH)
    lease = Lease(redis_client, JOB)
    with held(database, ARENA):
        run_id = stack.trigger()
        at_work(stack, history)
        first = lease.text()
        assert first is not None
        stack.mark_failed(JOB, run_id, ARENAS_TASK)
        assert lease.seconds_until_released(stack, first) < FREE_WITHIN_SECONDS
        assert stack.ended(run_id).state == "failed"
        assert lease.text() is None
        assert history.waiting_queries() == []
    assert history.reasons(run_id)["Arena"] == "failed: stopped by SIGTERM"
    assert history.scored() == {"Cellar": CUSTOMERS_EACH}
    assert history.letters() == [("Arena", "open")]
    assert "  Arena: " in stack.errors(run_id, "finish")
    stack.clear(JOB, run_id)
    assert stack.ended(run_id).state == "success"
    assert history.scored() == ALL_SCORED
    assert history.letters() == [("Arena", "resolved")]


@pytest.mark.fault("run-marked-failed")
def test_finish_still_runs_after_a_run_was_marked_failed_and_names_what_is_not_done(
    stack: Stack, database: Database, history: History
) -> None:
    fill(history.superuser, BOTH)
    with held(database, ARENA):
        run_id = stack.trigger()
        at_work(stack, history)
        stack.mark_failed(JOB, run_id)
        assert stack.ended(run_id).state == "failed"
        stack.wait("finish", lambda: stack.states(run_id)["finish"] == "failed")
        stack.wait("its follower", lambda: stack.states(run_id)["ended_well"] == "upstream_failed")
        stopped(stack, history, run_id)
    assert stack.ended(run_id).state == "failed"
    assert "  Arena: " in stack.errors(run_id, "finish")
    assert history.outcome(run_id) == "failed"
    assert history.letters() == [("Arena", "open")]
    stack.clear(JOB, run_id)
    assert stack.ended(run_id).state == "success"
    assert history.scored() == ALL_SCORED
    assert history.letters() == [("Arena", "resolved")]


@pytest.mark.fault("timeout-in-query")
def test_a_timeout_cancels_the_query_releases_the_lease_and_is_retried_with_growing_delays(
    stack: Stack, database: Database, history: History, redis_client: redis.Redis
) -> None:
    fill(history.superuser, BOTH)
    lease = Lease(redis_client, "hasty")
    with held(database, ARENA):
        run_id = stack.trigger("hasty")
        began = at_work(stack, history)
        first = lease.text()
        assert first is not None
        # the timeout of 3 s began before the query did
        limit = timedelta(seconds=3 + 1)
        (cancelled,) = stack.wait("the query's end", lambda: _time_if_none_waits(history))
        assert cancelled - began < limit
        assert lease.seconds_until_released(stack, first) < 1
        assert history.scored().get("Arena") is None
        stack.wait("the second timeout", lambda: len(tries(stack, "hasty", run_id)) == 2)
    assert stack.ended(run_id, "hasty").state == "success"
    attempts = [outcome for name, outcome in history.attempts(run_id) if name == "Arena"]
    assert attempts == ["failed", "failed", "succeeded"]
    assert history.scored() == ALL_SCORED
    (one, two) = tries(stack, "hasty", run_id)
    assert (one[0], two[0]) == (1, 2)
    assert one[1] is not None
    assert two[1] is not None
    assert 1 <= one[1] <= 2
    assert 2 <= two[1] <= 4


@pytest.mark.fault("worker-dies-before-batch")
def test_after_a_worker_died_before_its_batch_the_run_is_red_and_a_clear_does_its_venues(
    stack: Stack, superuser: psycopg.Connection, history: History
) -> None:
    fill(superuser, BOTH)
    stack.set_variable("frail_dies", True)
    run_id = stack.trigger("frail")
    assert stack.ended(run_id, "frail").state == "failed"
    assert stack.states(run_id, "frail") == {
        "plan": "success",
        "0": "failed",  # killed before it had its label
        "1": "failed",
        "finish": "failed",
        "ended_well": "upstream_failed",
    }
    assert history.attempts(run_id) == []
    assert history.outcome(run_id) == "failed"
    errors = stack.errors(run_id, "finish", "frail")
    assert "not ended well (2)" in errors
    assert "Arena: it was never begun" in errors
    assert "Cellar: it was never begun" in errors
    assert history.letters() == [("Arena", "open"), ("Cellar", "open")]
    # the killed worker could not evaluate the policy, so the delay is the plain one
    assert tries(stack, "frail", run_id) == [(1, None)]
    stack.set_variable("frail_dies", False)
    stack.clear("frail", run_id)
    assert stack.ended(run_id, "frail").state == "success"
    assert history.scored() == ALL_SCORED
    assert history.letters() == [("Arena", "resolved"), ("Cellar", "resolved")]


@pytest.mark.fault("run-timeout")
@pytest.mark.deep
def test_a_run_that_timed_out_is_reported_by_the_next_run(
    stack: Stack, database: Database, history: History
) -> None:
    fill(history.superuser, BOTH)
    with held(database, ARENA):
        run_id = stack.trigger("brief")
        at_work(stack, history)
        stack.metadata.execute(
            "UPDATE dag_run SET start_date = start_date - interval '1 hour' WHERE run_id = %s",
            [run_id],
        )
        assert stack.ended(run_id, "brief").state == "failed"
        assert stack.states(run_id, "brief")["finish"] == "skipped"
        assert history.outcome(run_id) == "planned"
        stopped(stack, history, run_id)
    later = stack.trigger("brief", venues=[str(CELLAR.id)])
    assert stack.ended(later, "brief").state == "success"
    assert history.outcome(run_id) == "failed"
    assert history.letters() == [("Arena", "open")]
    events = [line["event"] for line in stack.log(later, "finish", "brief")]
    assert any(
        line.startswith(f"reported late: run {run_id} as of ") and line.endswith("not done: Arena")
        for line in events
    ), events


@pytest.mark.fault("plan-fails")
@pytest.mark.deep
def test_a_run_whose_plan_fails_is_red_until_the_setting_is_fixed_and_it_is_cleared(
    stack: Stack, superuser: psycopg.Connection, history: History
) -> None:
    fill(superuser, BOTH)
    stack.set_variable("brief", {"enabled": False, "retries": 0, "max_tasks": 0})
    run_id = stack.trigger("brief")
    assert stack.ended(run_id, "brief").state == "failed"
    assert stack.states(run_id, "brief") == {
        "plan": "failed",
        "score": "upstream_failed",
        "finish": "failed",
        "ended_well": "upstream_failed",
    }
    errors = stack.errors(run_id, "plan", "brief")
    assert "Variable brief: max_tasks = 0: Input should be greater than or equal to 1" in errors
    assert "plan ended failed: nothing was done" in stack.errors(run_id, "finish", "brief")
    stack.set_variable("brief", {"enabled": False, "retries": 0})
    stack.clear("brief", run_id)
    assert stack.ended(run_id, "brief").state == "success"
    assert history.scored() == ALL_SCORED


def _time_if_none_waits(history: History) -> tuple[datetime] | None:
    """Return the server's time if no query waits any more."""
    if history.waiting_queries():
        return None
    row = history.superuser.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return (row[0],)
