"""Find or trigger the run of a job that `make run` waits for, follow it, and report failures."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from venue_analytics.demo.airflow import AirflowApi, AirflowError, Dag, Run
from venue_analytics.demo.terminal import Terminal

POLL_SECONDS = 0.5
#: Long enough for a second parse after one that exceeded the import timeout.
DAG_SECONDS = 300
SCHEDULED_RUN_SECONDS = 60
# States of tasks that did not cause a failed run.
NO_CAUSE = ("success", "skipped", "removed", "upstream_failed")
# What to show of a finished task, and of a finished try of an unfinished one.
VERDICTS = {"success": "", "skipped": ": skipped", "removed": ": removed", "failed": ": failed"}
AGAIN = {"up_for_retry": ": failed, will be retried"}


@dataclass(frozen=True)
class Before:
    """A DAG and its runs before the scheduler started, which may add runs immediately."""

    dag: Dag | None
    runs: tuple[Run, ...]

    @classmethod
    def note(cls, api: AirflowApi, dag_id: str) -> "Before":
        """Record the DAG and its runs; call this before the scheduler starts."""
        return cls(api.dag(dag_id), tuple(api.newest_runs(dag_id)))

    @property
    def going(self) -> Run | None:
        """The newest unfinished run, or None."""
        return next((run for run in self.runs if not run.ended), None)


def wait_for_dag(api: AirflowApi, dag_id: str, since: datetime, check: Callable[[], None]) -> Dag:
    """Wait until Airflow has parsed the DAG's file.

    The next parse of a file may succeed: a busy machine exceeds the import timeout, or the user
    fixes an error. So only the second failure counts. Failures before `since` are ignored: Airflow
    keeps them until a parse succeeds.

    Args:
        api: Airflow.
        dag_id: the DAG.
        since: older parses and failures do not count.
        check: raises if waiting has become pointless.

    Raises:
        AirflowError: the parse of `<dag_id>.py` failed twice, or was not done within five minutes.
    """
    first_tries: dict[str, datetime] = {}
    deadline = time.monotonic() + DAG_SECONDS
    while time.monotonic() < deadline:
        check()
        dag = api.dag(dag_id)
        if dag is not None and dag.parsed_at is not None and dag.parsed_at >= since:
            return dag
        for failure in api.import_failures(since):
            if Path(failure.file).name != f"{dag_id}.py":
                continue  # another DAG's file; reported only if this DAG does not appear in time
            if failure.tried_at > first_tries.setdefault(failure.file, failure.tried_at):
                raise AirflowError(f"Airflow cannot parse the DAG file {failure}")
        time.sleep(POLL_SECONDS)
    late = f"Airflow has not parsed the DAG {dag_id} within {DAG_SECONDS} s"
    raise AirflowError("\n".join([late, *map(str, api.import_failures(since))]))


def scheduled_or_triggered(
    api: AirflowApi, dag_id: str, before: Before, dag: Dag, check: Callable[[], None]
) -> Run:
    """Return an unfinished run, else the scheduler's run of the last interval, else a new one.

    Args:
        api: Airflow.
        dag_id: the DAG; it is unpaused if it was paused.
        before: the DAG and its runs before the scheduler started.
        dag: the DAG as parsed after that.
        check: raises if waiting has become pointless.
    """
    # The scheduler advances the date of an unpaused DAG, so the state before its start decides.
    seen = before.dag if before.dag is not None and not before.dag.is_paused else dag
    is_due = seen.next_run_after is not None and seen.next_run_after <= datetime.now(UTC)
    if dag.is_paused:
        api.unpause(dag_id)
    if before.going is not None:
        return before.going
    if is_due:
        known = {run.run_id for run in before.runs}
        deadline = time.monotonic() + SCHEDULED_RUN_SECONDS
        while time.monotonic() < deadline:
            check()
            for run in api.newest_runs(dag_id):
                if run.run_id not in known:
                    return run
            time.sleep(POLL_SECONDS)
    return api.trigger(dag_id, {})


def triggered_with(
    api: AirflowApi, dag_id: str, before: Before, dag: Dag, conf: Mapping[str, Any]
) -> Run:
    """Return an unfinished run with this conf, else trigger a new one."""
    if dag.is_paused:
        api.unpause(dag_id)
    if before.going is not None and before.going.conf == conf:
        return before.going
    return api.trigger(dag_id, conf)


def follow(
    api: AirflowApi, dag_id: str, run: Run, check: Callable[[], None], terminal: Terminal
) -> Run:
    """Show the run's mapped tasks as they end, until the run ends; return the ended run."""
    shown: set[tuple[str, int, int]] = set()
    with terminal.bar() as bar:
        while True:
            check()
            # Query the run first, so that the tasks of an ended run are in their final state.
            now = api.run(dag_id, run.run_id)
            items = [task for task in api.tasks(dag_id, run.run_id) if task.mapped]
            done = sum(task.state in VERDICTS for task in items)
            for task in items:
                attempt = (task.task_id, task.map_index, task.try_number)
                verdict = VERDICTS.get(task.state or "", AGAIN.get(task.state or ""))
                if verdict is not None and attempt not in shown:
                    shown.add(attempt)
                    bar.show(done, len(items), f"{task.name}{verdict}", task.seconds or 0)
            if now.ended:
                return now
            time.sleep(POLL_SECONDS)


def failures(api: AirflowApi, dag_id: str, run: Run) -> list[str]:
    """Return the name and state of each task that made a run fail, with the errors in its log."""
    lines = []
    for task in sorted(api.tasks(dag_id, run.run_id), key=lambda task: not task.mapped):
        if task.state in NO_CAUSE:
            continue
        lines.append(f"{task.name}: {task.state or 'not started'}")
        if task.state == "failed":
            reasons = api.last_errors(dag_id, run.run_id, task)
            lines += [f"    {line}" for reason in reasons for line in reason.splitlines()]
    return lines
