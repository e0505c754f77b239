"""The triggerer reports a run that hangs once its deadline has passed."""

from __future__ import annotations

from tests.dags.scheduler.stack import Stack


def states_of_callbacks(stack: Stack, dag_id: str) -> list[str]:
    rows = stack.metadata.execute(
        "SELECT callback.state FROM deadline JOIN callback ON callback.id = deadline.callback_id "
        "JOIN dag_run ON dag_run.id = deadline.dagrun_id WHERE dag_run.dag_id = %s",
        [dag_id],
    )
    return [state for (state,) in rows]


def logged_by_the_triggerer(stack: Stack, dag_id: str) -> list[str]:
    lines = stack.processes.log("triggerer").read_text().splitlines()
    return [line for line in lines if f"{dag_id}: run " in line]


def test_a_run_that_misses_its_deadline_is_reported_once(stack: Stack) -> None:
    (run,) = stack.wait("the run", lambda: stack.api.newest_runs("watched"))
    stack.wait("the call", lambda: states_of_callbacks(stack, "watched") == ["success"])
    (line,) = logged_by_the_triggerer(stack, "watched")
    assert f"watched: run {run.run_id} has missed its deadline" in line
    assert "error" in line


def test_the_first_run_after_unpausing_is_not_reported_although_its_deadline_has_passed(
    stack: Stack,
) -> None:
    stack.wait("the call", lambda: states_of_callbacks(stack, "late") == ["success"])
    assert logged_by_the_triggerer(stack, "late") == []


def test_a_dag_that_is_parsed_again_and_again_stays_the_same_version(stack: Stack) -> None:
    first = stack.api.dag("watched")
    assert first is not None
    stack.wait("another parsing", lambda: stack.api.dag("watched") != first)
    versions = stack.metadata.execute("SELECT count(*) FROM dag_version WHERE dag_id = 'watched'")
    assert versions.fetchone() == (1,)
