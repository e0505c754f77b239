"""The one run of a job that `make run` waits for: which it is, how it goes, and how it ended."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from venue_analytics.demo.airflow import AirflowApi, AirflowError, Dag, Run
from venue_analytics.demo.terminal import Terminal

POLL_SECONDS = 0.5
#: Long enough for a second try where the first has run into the import time-out.
DAG_SECONDS = 300
SCHEDULED_RUN_SECONDS = 60
# What is no cause of a red run: what has ended well, and what has waited for others in vain.
NO_CAUSE = ("success", "skipped", "removed", "upstream_failed")
# What is said of a task that is over, and of one that is not, though a try of it is.
VERDICTS = {"success": "", "skipped": ": skipped", "removed": ": removed", "failed": ": failed"}
AGAIN = {"up_for_retry": ": failed, will be tried again"}


@dataclass(frozen=True)
class Before:
    """What there was of a DAG before the scheduler started: afterwards it may add runs at once."""

    dag: Dag | None
    runs: tuple[Run, ...]

    @classmethod
    def note(cls, api: AirflowApi, dag_id: str) -> "Before":
        """Look at the DAG while no scheduler runs."""
        return cls(api.dag(dag_id), tuple(api.newest_runs(dag_id)))

    @property
    def going(self) -> Run | None:
        """A run that is not over yet."""
        return next((run for run in self.runs if not run.ended), None)


def wait_for_dag(api: AirflowApi, dag_id: str, since: datetime, check: Callable[[], None]) -> Dag:
    """Wait until Airflow has read the DAG's file.

    A file that Airflow could not read may be readable at the next try: a busy machine runs into the
    import time-out, a person mends a mistake. So the second failure since the start counts. What
    failed before the start is of no interest: Airflow keeps it until it has read the file.

    Args:
        api: Airflow.
        dag_id: the DAG.
        since: an older reading does not count, nor does an older failure.
        check: raises when waiting has become vain.

    Raises:
        AirflowError: the DAG's file, which has its name, could not be read twice, or was not within
            five minutes.
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
                continue  # somebody else's; told where this one does not come
            if failure.tried_at > first_tries.setdefault(failure.file, failure.tried_at):
                raise AirflowError(f"Airflow cannot read the DAG file {failure}")
        time.sleep(POLL_SECONDS)
    late = f"Airflow has not read the DAG {dag_id} within {DAG_SECONDS} s"
    raise AirflowError("\n".join([late, *map(str, api.import_failures(since))]))


def scheduled_or_triggered(
    api: AirflowApi, dag_id: str, before: Before, dag: Dag, check: Callable[[], None]
) -> Run:
    """The run that goes already, else the scheduler's own of the last interval, else a new one.

    Args:
        api: Airflow.
        dag_id: the DAG, which is unpaused here.
        before: what there was before the scheduler started.
        dag: as it was read after that.
        check: raises when waiting has become vain.
    """
    # Once it is unpaused, the scheduler moves the date on: the earlier look decides.
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
    """The run of this conf that goes already, else a new one."""
    if dag.is_paused:
        api.unpause(dag_id)
    if before.going is not None and before.going.conf == conf:
        return before.going
    return api.trigger(dag_id, conf)


def follow(
    api: AirflowApi, dag_id: str, run: Run, check: Callable[[], None], terminal: Terminal
) -> Run:
    """Show the run's mapped tasks as they end, until the run has; returns it as it ended."""
    told: set[tuple[str, int, int]] = set()
    with terminal.bar() as bar:
        while True:
            check()
            # Asked first, so that the tasks of a run that has ended are seen as they ended.
            now = api.run(dag_id, run.run_id)
            items = [task for task in api.tasks(dag_id, run.run_id) if task.mapped]
            done = sum(task.state in VERDICTS for task in items)
            for task in items:
                attempt = (task.task_id, task.map_index, task.try_number)
                verdict = VERDICTS.get(task.state or "", AGAIN.get(task.state or ""))
                if verdict is not None and attempt not in told:
                    told.add(attempt)
                    bar.show(done, len(items), f"{task.name}{verdict}", task.seconds or 0)
            if now.ended:
                return now
            time.sleep(POLL_SECONDS)


def failures(api: AirflowApi, dag_id: str, run: Run) -> list[str]:
    """Each task that turned a run red: its name, and why by the end of its log."""
    lines = []
    for task in sorted(api.tasks(dag_id, run.run_id), key=lambda task: not task.mapped):
        if task.state in NO_CAUSE:
            continue
        lines.append(f"{task.name}: {task.state or 'not started'}")
        if task.state == "failed":
            reasons = api.last_errors(dag_id, run.run_id, task)
            lines += [f"    {line}" for reason in reasons for line in reason.splitlines()]
    return lines
