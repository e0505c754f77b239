"""A night on a real scheduler: a venue fails, its cause is fixed, and a clear makes it green."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from tests.dags.scheduler.conftest import MakeDatabase
from tests.dags.scheduler.history import History, held
from tests.dags.scheduler.stack import JOB, Stack
from tests.databases import Database
from tests.harness.simple_venues import ARENA, CUSTOMERS_EACH, FAULT, break_venue, fill, mend

from venue_analytics.demo.airflow import Run, Task

RUNS = f"/api/v2/dags/{JOB}/dagRuns"
NAMES = ("Arena", "Ballroom", "Cellar", "Dome")
#: The mapped tasks; the small venues of a tenant share one.
ARENAS_TASK, OTHER_TASK = "2 venues: Arena, Ballroom", "2 venues: Cellar, Dome"


@dataclass(frozen=True)
class Night:
    """The state of a run after it ended."""

    run: Run
    tasks: dict[str, Task]
    attempts: list[tuple[str, str]]
    scored: dict[str, int]
    letters: list[tuple[str, str]]
    outcome: str


@pytest.fixture(scope="module")
def database(new_database: MakeDatabase) -> Iterator[Database]:
    """Yield a database of four venues, one of which cannot be scored."""
    with new_database() as made, made.superuser() as superuser:
        fill(superuser)
        break_venue(superuser, ARENA)
        yield made


@pytest.fixture(scope="module")
def superuser(database: Database) -> Iterator[psycopg.Connection]:
    with database.superuser() as connection:
        yield connection


@pytest.fixture(scope="module")
def history(superuser: psycopg.Connection) -> History:
    return History(superuser)


@pytest.fixture(scope="module")
def red_night(stack: Stack, history: History) -> Night:
    """Return the run that the scheduler creates by itself when the DAG is unpaused."""
    return _night(stack, history, stack.ended(stack.first_run(JOB).run_id))


@pytest.fixture(scope="module")
def log_of_arena(stack: Stack, red_night: Night) -> list[str]:
    """Return the log lines of the failed task."""
    return [line["event"] for line in stack.log(red_night.run.run_id, ARENAS_TASK)]


@pytest.fixture(scope="module")
def error_of_arena(stack: Stack, red_night: Night) -> str:
    """Return the errors in the failed task's log."""
    return stack.errors(red_night.run.run_id, ARENAS_TASK)


@pytest.fixture(scope="module")
def errors_of_finish(stack: Stack, red_night: Night) -> str:
    """Return the errors in the log of the red night's finish."""
    return stack.errors(red_night.run.run_id, "finish")


@pytest.fixture(scope="module")
def cleared_night(
    stack: Stack,
    history: History,
    red_night: Night,
    log_of_arena: list[str],
    error_of_arena: str,
    errors_of_finish: str,
) -> Night:
    """Return the same run after the cause was fixed and its failed tasks were cleared."""
    assert _armed_deadlines(stack, red_night.run.run_id) == 1
    mend(history.superuser)
    stack.clear(JOB, red_night.run.run_id)
    return _night(stack, history, stack.ended(red_night.run.run_id))


def test_unpausing_runs_the_last_interval_once(stack: Stack, red_night: Night) -> None:
    (run,) = stack.api.newest_runs(JOB)
    assert run.run_id.startswith("scheduled__")
    end = datetime.fromisoformat(stack.rest.get(f"{RUNS}/{run.run_id}").json()["data_interval_end"])
    dag = stack.api.dag(JOB)
    assert dag is not None
    assert dag.next_run_after is not None
    assert end <= datetime.now(UTC) < dag.next_run_after
    assert (end.hour, end.minute) == (2, 0)


def test_a_scheduled_run_is_as_of_its_intervals_end(
    stack: Stack, history: History, red_night: Night
) -> None:
    run = stack.rest.get(f"{RUNS}/{red_night.run.run_id}").json()
    assert history.as_of(red_night.run.run_id) == datetime.fromisoformat(run["data_interval_end"])


@pytest.mark.fault("venue-fails-always")
def test_a_failed_venue_turns_the_run_red_and_leaves_the_others_done(red_night: Night) -> None:
    assert red_night.run.state == "failed"
    assert {name: task.state for name, task in red_night.tasks.items()} == {
        "plan": "success",
        ARENAS_TASK: "failed",
        OTHER_TASK: "success",
        "finish": "failed",
        "ended_well": "upstream_failed",
    }
    assert red_night.outcome == "failed"
    assert red_night.scored == {"Ballroom": 3, "Cellar": 3, "Dome": 3}
    assert red_night.letters == [("Arena", "open")]


def test_the_log_of_finish_names_the_venue_and_the_reason(errors_of_finish: str) -> None:
    assert f"Arena: RaiseException: {FAULT}" in errors_of_finish


def test_a_venues_lines_are_in_a_group_of_its_name_and_its_error_is_logged_outside_too(
    log_of_arena: list[str],
) -> None:
    begin = log_of_arena.index("::group::Arena")
    end = log_of_arena.index("::endgroup::", begin)
    error = f"Arena failed: RaiseException: {FAULT}"
    together = log_of_arena.index(f"::group::{ARENAS_TASK}")
    unfolded = log_of_arena[log_of_arena.index("::endgroup::", together) : begin]
    assert any("s lost, each is processed by itself now: " in line for line in unfolded)
    assert error in log_of_arena[begin:end]
    # in no other group, because Airflow's groups nest and a folded one hides its content
    opened = sum(line.startswith("::group::") for line in log_of_arena[:begin])
    assert opened == log_of_arena[:begin].count("::endgroup::")
    assert any("Task failed" in line for line in log_of_arena[end:])


def test_the_tasks_error_names_its_venue(error_of_arena: str) -> None:
    assert (
        f"TaskFailedError: 1 of 2 venues failed: Arena: RaiseException: {FAULT}" in error_of_arena
    )


@pytest.mark.fault("venue-fails-always")
def test_clear_failed_turns_the_run_green_and_resolves_the_letter(cleared_night: Night) -> None:
    assert cleared_night.run.state == "success"
    assert {task.state for task in cleared_night.tasks.values()} == {"success"}
    assert cleared_night.outcome == "succeeded"
    assert cleared_night.scored == dict.fromkeys(NAMES, CUSTOMERS_EACH)
    assert cleared_night.letters == [("Arena", "resolved")]


def test_clear_failed_runs_the_failed_venue_and_finish_again_and_nothing_else(
    red_night: Night, cleared_night: Night
) -> None:
    assert {name: task.try_number for name, task in cleared_night.tasks.items()} == {
        "plan": 1,
        ARENAS_TASK: 2,
        OTHER_TASK: 1,
        "finish": 2,
        "ended_well": 1,
    }
    assert sorted(red_night.attempts) == [
        ("Arena", "failed"),
        ("Ballroom", "succeeded"),
        ("Cellar", "succeeded"),
        ("Dome", "succeeded"),
    ]
    assert cleared_night.attempts == [*red_night.attempts, ("Arena", "succeeded")]


def test_an_armed_deadline_does_not_prevent_a_clear_and_is_gone_after_the_success(
    stack: Stack, cleared_night: Night
) -> None:
    assert _armed_deadlines(stack, cleared_night.run.run_id) == 0


def test_every_task_knows_how_often_its_run_was_cleared(
    history: History, cleared_night: Night
) -> None:
    seen = history.superuser.execute(
        "SELECT b.label, b.ended_well_at_clear FROM jobs.batch AS b JOIN jobs.run AS r "
        "ON r.id = b.run WHERE r.run_id = %s",
        [cleared_night.run.run_id],
    ).fetchall()
    assert dict(seen) == {ARENAS_TASK: 1, OTHER_TASK: 0}


def test_a_manual_run_is_as_of_its_run_after_and_does_the_requested_venues(
    stack: Stack, history: History, cleared_night: Night
) -> None:
    # With a logical date, Airflow assigns it the last night's interval.
    body = {
        "logical_date": datetime.now(UTC).isoformat(),
        "conf": {"venues": [str(ARENA.id)]},
    }
    made = stack.rest.post(RUNS, json=body).json()
    run_id = made["dag_run_id"]
    assert stack.ended(run_id).state == "success"
    assert history.as_of(run_id) == datetime.fromisoformat(made["run_after"])
    assert history.as_of(run_id) != datetime.fromisoformat(made["data_interval_end"])
    assert history.attempts(run_id) == [("Arena", "succeeded")]


@pytest.mark.fault("backfill-beside")
@pytest.mark.deep
def test_a_backfill_beside_tonights_run_replaces_nothing_newer(
    stack: Stack, database: Database, history: History, cleared_night: Night
) -> None:
    begin = datetime(2026, 2, 1, 2, tzinfo=UTC)
    with held(database, ARENA):
        history.superuser.execute("DELETE FROM customer_rfm_state")
        tonight = stack.trigger(force=True)
        stack.wait("tonight's run at Arena", history.waiting_queries)
        answer = stack.rest.post(
            "/api/v2/backfills",
            json={"dag_id": JOB, "from_date": begin.isoformat(), "to_date": begin.isoformat()},
        )
        assert answer.status_code == httpx.codes.OK, answer.text
        backfilled = stack.wait(
            "the backfill's run",
            lambda: [run for run in stack.api.newest_runs(JOB) if "backfill" in run.run_id],
        )
        older = backfilled[0].run_id
        # Ballroom shares tonight's transaction
        others = {(name, "skipped") for name in NAMES[2:]}
        stack.wait("the backfill beside", lambda: set(history.attempts(older)) == others)
    assert stack.ended(tonight).state == "success"
    assert stack.ended(older).state == "success"
    assert history.as_of(older) == begin + timedelta(days=1)
    assert {reason.split(",")[0] for reason in history.reasons(older).values()} == {
        "skipped: newer results stand"
    }
    assert history.scored() == dict.fromkeys(NAMES, CUSTOMERS_EACH)


@pytest.mark.parametrize(
    "conf",
    [{"venues": "Arena"}, {"venues": ["Arena"]}, {"force": "perhaps"}, {"as_of": 20260301}],
)
def test_a_param_of_the_wrong_type_is_answered_with_400(
    stack: Stack, cleared_night: Night, conf: dict[str, Any]
) -> None:
    before = len(stack.api.newest_runs(JOB))
    answer = stack.rest.post(RUNS, json={"logical_date": None, "conf": conf})
    assert answer.status_code == httpx.codes.BAD_REQUEST
    (param,) = conf
    assert f"Invalid input for param {param}" in answer.text
    assert len(stack.api.newest_runs(JOB)) == before


def _night(stack: Stack, history: History, run: Run) -> Night:
    return Night(
        run,
        stack.tasks(run.run_id),
        history.attempts(run.run_id),
        history.scored(),
        history.letters(),
        history.outcome(run.run_id),
    )


def _armed_deadlines(stack: Stack, run_id: str) -> int:
    rows = stack.metadata.execute(
        "SELECT FROM deadline JOIN dag_run ON dag_run.id = deadline.dagrun_id "
        "WHERE dag_run.run_id = %s AND dag_run.dag_id = %s AND NOT deadline.missed",
        [run_id, JOB],
    )
    return len(rows.fetchall())
