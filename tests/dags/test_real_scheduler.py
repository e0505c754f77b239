"""A night on a real scheduler: a venue fails, its cause is mended, a clear makes it green."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from tests.conftest import SIMPLE_TABLES
from tests.harness.simple_venues import (
    ARENA,
    CUSTOMERS_EACH,
    FAULT,
    break_venue,
    fill,
    mend,
    scored_customers,
)

from venue_analytics.database.connection import DatabaseAddress
from venue_analytics.database.migrate import migrate
from venue_analytics.demo import airflow
from venue_analytics.demo.airflow import AirflowApi, Run, Task
from venue_analytics.demo.interrupts import SIGNALS, Interrupts
from venue_analytics.demo.processes import Processes
from venue_analytics.demo.profile import Profile, write_private
from venue_analytics.demo.scoring_run import wait_for_dag
from venue_analytics.demo.servers import PostgresServer
from venue_analytics.demo.settings_file import SettingsFile

pytestmark = pytest.mark.parametrize(
    "postgres", [pytest.param(18, id="postgres18")], indirect=True, scope="module"
)
JOB = "rfm_scoring"
RUNS = f"/api/v2/dags/{JOB}/dagRuns"
DEADLINE_SECONDS = 90
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Stack:
    """A running Airflow, its REST API and the analytics database."""

    api: AirflowApi
    rest: httpx.Client
    processes: Processes
    superuser: psycopg.Connection

    def wait(self, what: str, found: Callable[[], Any]) -> Any:
        """Ask until there is an answer; fails at the deadline, or when a process has ended."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            self.processes.check()
            if answer := found():
                return answer
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"{what}: not within {DEADLINE_SECONDS} s")

    def ended(self, run_id: str) -> Run:
        """Wait until a run has ended."""

        def look() -> Run | None:
            run = self.api.run(JOB, run_id)
            return run if run.ended else None

        found: Run = self.wait(f"the end of run {run_id}", look)
        return found

    def tasks(self, run_id: str) -> dict[str, Task]:
        """The tasks of a run as they stand, by label or else id."""
        return {task.name: task for task in self.api.tasks(JOB, run_id)}

    def attempts(self, run_id: str) -> list[tuple[str, str]]:
        """Each attempt at a venue that history has of a run: name and outcome, oldest first."""
        return self.superuser.execute(
            "SELECT v.venue_name, v.outcome FROM jobs.venue_run AS v "
            "JOIN jobs.run AS r ON r.id = v.run WHERE r.run_id = %s ORDER BY v.id",
            [run_id],
        ).fetchall()

    def as_of(self, run_id: str) -> datetime:
        """What history says that a run is as of."""
        row = self.superuser.execute(
            "SELECT as_of FROM jobs.run WHERE run_id = %s", [run_id]
        ).fetchone()
        assert row is not None
        moment: datetime = row[0]
        return moment


@dataclass(frozen=True)
class Night:
    """A run as it stood when it had ended."""

    run: Run
    tasks: dict[str, Task]
    attempts: list[tuple[str, str]]
    scored: dict[str, int]


@pytest.fixture(scope="module")
def stack(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start Airflow as the demo does, over four venues of which one cannot be scored."""
    profile = Profile("scheduler", tmp_path_factory.mktemp("scheduler"))
    postgres.prepare({"scheduler_airflow": "airflow", "scheduler_simple": "analytics_owner"})
    owner = postgres.uri("scheduler_simple", "analytics_owner")
    with psycopg.connect(owner) as connection:
        connection.execute(SIMPLE_TABLES)
    migrate(DatabaseAddress.parse(owner, name="the test's database"), adapter="simple")

    secrets, ports = profile.secrets(), profile.ports()
    passwords = json.dumps({airflow.ADMIN: secrets.admin_password})
    write_private(airflow.passwords_file(profile), passwords)
    environment = airflow.environment(
        profile, ports, secrets, postgres.uri("scheduler_airflow", "airflow", "psycopg2")
    )
    # Ctrl-C stays pytest's.
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    interrupts = Interrupts()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    processes = Processes(profile.processes, profile.logs, airflow.plain_environment(), interrupts)
    api = AirflowApi(ports.ui, secrets.admin_password)
    try:
        with (
            psycopg.connect(
                postgres.superuser_uri("scheduler_simple"),
                autocommit=True,
                options="-c timezone=UTC",
            ) as superuser,
            httpx.Client(base_url=api.url, timeout=30, trust_env=False) as rest,
        ):
            fill(superuser)
            break_venue(superuser, ARENA)
            processes.start("airflow-migrate", airflow.MIGRATE, environment)
            processes.wait("airflow-migrate")
            began = datetime.now(UTC)
            processes.start("api-server", airflow.api_server(ports), environment)
            started = Stack(api, rest, processes, superuser)
            started.wait("the API server's answer", api.log_in)
            login = {"username": airflow.ADMIN, "password": secrets.admin_password}
            token = rest.post("/auth/token", json=login).json()["access_token"]
            rest.headers["Authorization"] = f"Bearer {token}"
            # First of all: a DAG parsed before its Variable is there has the default retries.
            api.import_settings(_settings(postgres.socket_directory))
            for name in ("scheduler", "dag-processor"):
                processes.start(name, airflow.SERVICES[name], environment)
            wait_for_dag(api, JOB, began, processes.check)
            yield started
    finally:
        api.close()
        processes.stop()
        left = _processes_of(profile.airflow_home)
    assert not left, f"still there: {left}"


@pytest.fixture(scope="module")
def red_night(stack: Stack) -> Night:
    """The run that the scheduler makes by itself when the DAG is unpaused."""
    assert stack.api.newest_runs(JOB) == []
    stack.api.unpause(JOB)
    runs = stack.wait("the scheduler's own run", lambda: stack.api.newest_runs(JOB))
    return _night(stack, stack.ended(runs[0].run_id))


@pytest.fixture(scope="module")
def cleared_night(stack: Stack, red_night: Night) -> Night:
    """The same run after its cause was mended and its failed tasks were cleared."""
    mend(stack.superuser)
    answer = stack.rest.post(
        f"/api/v2/dags/{JOB}/clearTaskInstances",
        json={"dag_run_id": red_night.run.run_id, "only_failed": True, "dry_run": False},
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    return _night(stack, stack.ended(red_night.run.run_id))


def test_unpausing_runs_the_last_interval_once(stack: Stack, red_night: Night) -> None:
    (run,) = stack.api.newest_runs(JOB)
    assert run.run_id.startswith("scheduled__")
    end = datetime.fromisoformat(stack.rest.get(f"{RUNS}/{run.run_id}").json()["data_interval_end"])
    dag = stack.api.dag(JOB)
    assert dag is not None
    assert dag.next_run_after is not None
    assert end <= datetime.now(UTC) < dag.next_run_after
    assert (end.hour, end.minute) == (2, 0)


def test_a_scheduled_run_is_as_of_its_intervals_end(stack: Stack, red_night: Night) -> None:
    run = stack.rest.get(f"{RUNS}/{red_night.run.run_id}").json()
    assert stack.as_of(red_night.run.run_id) == datetime.fromisoformat(run["data_interval_end"])


def test_a_failed_venue_turns_the_run_red_and_leaves_the_others_done(red_night: Night) -> None:
    assert red_night.run.state == "failed"
    assert {name: task.state for name, task in red_night.tasks.items()} == {
        "plan": "success",
        "Arena": "failed",
        "Ballroom": "success",
        "Cellar": "success",
        "Dome": "success",
        "finish": "failed",
    }
    assert red_night.scored == {"Ballroom": 3, "Cellar": 3, "Dome": 3}


def test_the_log_of_finish_names_the_venue_and_the_reason(stack: Stack, red_night: Night) -> None:
    told = stack.api.last_errors(JOB, red_night.run.run_id, red_night.tasks["finish"])
    assert any(f"Arena: RaiseException: {FAULT}" in line for line in told), told


def test_clear_failed_turns_the_run_green(cleared_night: Night) -> None:
    assert cleared_night.run.state == "success"
    assert {task.state for task in cleared_night.tasks.values()} == {"success"}
    assert cleared_night.scored == dict.fromkeys(
        ("Arena", "Ballroom", "Cellar", "Dome"), CUSTOMERS_EACH
    )


def test_clear_failed_runs_the_failed_venue_and_finish_again_and_nothing_else(
    red_night: Night, cleared_night: Night
) -> None:
    assert {name: task.try_number for name, task in cleared_night.tasks.items()} == {
        "plan": 1,
        "Arena": 2,
        "Ballroom": 1,
        "Cellar": 1,
        "Dome": 1,
        "finish": 2,
    }
    assert sorted(red_night.attempts) == [
        ("Arena", "failed"),
        ("Ballroom", "succeeded"),
        ("Cellar", "succeeded"),
        ("Dome", "succeeded"),
    ]
    assert cleared_night.attempts == [*red_night.attempts, ("Arena", "succeeded")]


def test_a_manual_run_is_as_of_its_moment_and_does_the_venues_asked_for(
    stack: Stack, cleared_night: Night
) -> None:
    # With a logical date, Airflow lends it the last night's interval.
    body = {
        "logical_date": datetime.now(UTC).isoformat(),
        "conf": {"venues": [str(ARENA.venue_id)]},
    }
    made = stack.rest.post(RUNS, json=body).json()
    run_id = made["dag_run_id"]
    assert stack.ended(run_id).state == "success"
    assert stack.as_of(run_id) == datetime.fromisoformat(made["run_after"])
    assert stack.as_of(run_id) != datetime.fromisoformat(made["data_interval_end"])
    assert stack.attempts(run_id) == [("Arena", "succeeded")]


def test_a_backfill_is_as_of_its_intervals_end_and_replaces_nothing_newer(
    stack: Stack, cleared_night: Night
) -> None:
    begin = datetime(2026, 2, 1, 2, tzinfo=UTC)
    answer = stack.rest.post(
        "/api/v2/backfills",
        json={"dag_id": JOB, "from_date": begin.isoformat(), "to_date": begin.isoformat()},
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    backfilled = stack.wait(
        "the backfill's run",
        lambda: [run for run in stack.api.newest_runs(JOB) if "backfill" in run.run_id],
    )
    run = stack.ended(backfilled[0].run_id)
    assert run.state == "success"
    assert stack.as_of(run.run_id) == begin + timedelta(days=1)
    assert {outcome for _, outcome in stack.attempts(run.run_id)} == {"skipped"}


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


def _night(stack: Stack, run: Run) -> Night:
    return Night(
        run, stack.tasks(run.run_id), stack.attempts(run.run_id), scored_customers(stack.superuser)
    )


def _settings(socket_directory: Path) -> SettingsFile:
    address = {"host": str(socket_directory), "schema": "scheduler_simple"}
    return SettingsFile(
        connections=[
            {"connection_id": "analytics_db", "conn_type": "postgres", "login": "analytics_jobs"}
            | address
        ],
        pools=[],
        variables=[{"key": JOB, "value": '{"retries": 0}'}],
    )


def _processes_of(airflow_home: Path) -> list[str]:
    """Name the processes, other than this one, that were started for an Airflow home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("AIRFLOW_HOME") == str(
                airflow_home
            ):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
