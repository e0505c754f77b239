"""A complete Airflow, started like the demo's, with the tests' DAGs beside the real one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from tests.databases import Database

from venue_analytics.demo import airflow
from venue_analytics.demo.airflow import AirflowApi, Run, Task
from venue_analytics.demo.interrupts import SIGNALS, Interrupts
from venue_analytics.demo.job_run import wait_for_dag
from venue_analytics.demo.processes import Processes
from venue_analytics.demo.profile import ROOT, Profile, write_private
from venue_analytics.demo.servers import PostgresServer, ValkeyServer
from venue_analytics.demo.settings_file import SettingsFile

JOB = "rfm_scoring"
DEADLINE_SECONDS = 90
POLL_SECONDS = 0.1


@dataclass(frozen=True, eq=False)
class Stack:
    """A running Airflow, its REST API, its metadata database, and the folder of its DAG files."""

    api: AirflowApi
    rest: httpx.Client
    processes: Processes
    metadata: psycopg.Connection
    dags: Path

    def wait(self, what: str, found: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
        """Poll until there is an answer; fail at the deadline, or if a process has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.processes.check()
            if answer := found():
                return answer
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"{what}: not within {seconds} s")

    def work_on(self, database: Database) -> None:
        """Make the jobs use a database from now on."""
        address = {"host": str(database.server.socket_directory), "schema": database.name}
        connection = {"connection_id": "analytics_db", "conn_type": "postgres"}
        self.api.import_settings(
            SettingsFile([connection | {"login": "analytics_jobs"} | address], [], [])
        )

    def set_variable(self, key: str, value: Any) -> None:
        """Create or edit a Variable with a JSON value."""
        body = {"key": key, "value": json.dumps(value)}
        answer = self.rest.patch(f"/api/v2/variables/{key}", json=body)
        if answer.status_code == httpx.codes.NOT_FOUND:
            answer = self.rest.post("/api/v2/variables", json=body)
        answer.raise_for_status()

    def first_run(self, dag_id: str) -> Run:
        """Unpause a DAG; return the run that the scheduler then creates by itself."""
        assert self.api.newest_runs(dag_id) == []
        self.api.unpause(dag_id)
        runs: list[Run] = self.wait(
            f"the first run of {dag_id}", lambda: self.api.newest_runs(dag_id)
        )
        return runs[0]

    def trigger(self, dag_id: str = JOB, **conf: Any) -> str:
        """Trigger a manual run; return its id."""
        return self.api.trigger(dag_id, conf).run_id

    def clear(self, dag_id: str, run_id: str, **options: Any) -> None:
        """Clear tasks of a run as the UI does; by default the failed ones."""
        body = {"dag_run_id": run_id, "dry_run": False, "only_failed": True} | options
        answer = self.rest.post(f"/api/v2/dags/{dag_id}/clearTaskInstances", json=body)
        assert answer.status_code == httpx.codes.OK, answer.text

    def mark_failed(self, dag_id: str, run_id: str, task: str = "") -> None:
        """Mark a run as failed, or one of its tasks (the id, and the index if it is mapped)."""
        body = {"new_state": "failed"} if task else {"state": "failed"}
        path = f"/taskInstances/{task}" if task else ""
        answer = self.rest.patch(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}{path}", json=body)
        assert answer.status_code == httpx.codes.OK, answer.text

    def ended(self, run_id: str, dag_id: str = JOB) -> Run:
        """Wait until a run and its last task have ended."""

        def look() -> Run | None:
            run = self.api.run(dag_id, run_id)
            going = [task for task in self.api.tasks(dag_id, run_id) if task.state == "running"]
            return run if run.ended and not going else None

        found: Run = self.wait(f"the end of run {run_id}", look)
        return found

    def tasks(self, run_id: str, dag_id: str = JOB) -> dict[str, Task]:
        """Return the tasks of a run by label, or else id."""
        return {task.name: task for task in self.api.tasks(dag_id, run_id)}

    def states(self, run_id: str, dag_id: str = JOB) -> dict[str, str | None]:
        """Return the state of each task of a run by label, or else id."""
        return {name: task.state for name, task in self.tasks(run_id, dag_id).items()}

    def log(self, run_id: str, name: str, dag_id: str = JOB) -> list[dict[str, Any]]:
        """Return the log lines of a task's last try."""
        task = self.tasks(run_id, dag_id)[name]
        answer = self.rest.get(
            f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task.task_id}"
            f"/logs/{task.try_number}",
            params={"map_index": task.map_index, "full_content": True},
            headers={"Accept": "application/json"},
        )
        return [line for line in answer.json()["content"] if isinstance(line, dict)]

    def errors(self, run_id: str, name: str, dag_id: str = JOB) -> str:
        """Return the errors in the log of a task's last try."""
        task = self.tasks(run_id, dag_id)[name]
        return "\n".join(self.api.last_errors(dag_id, run_id, task))


@contextmanager
def running(
    name: str,
    directory: Path,
    postgres: PostgresServer,
    valkey: ValkeyServer,
    variables: Mapping[str, Mapping[str, Any]],
    *,
    triggerer: bool,
) -> Iterator[Stack]:
    """Run an Airflow; none of its processes is left behind.

    Args:
        name: the name of its metadata database, which is already migrated.
        directory: the directory of its files.
        postgres: the server of the metadata and analytics databases.
        valkey: the server of the leases.
        variables: imported before any DAG is parsed, which would otherwise have its defaults.
        triggerer: whether to start one.
    """
    profile = Profile(name, directory)
    dags = directory / "dags"
    dags.mkdir()
    shutil.copy(ROOT / "dags" / f"{JOB}.py", dags)
    shutil.copy(Path(__file__).with_name("trial_dags.py"), dags)
    secrets, ports = profile.secrets(), profile.ports()
    passwords = json.dumps({airflow.ADMIN: secrets.admin_password})
    write_private(airflow.passwords_file(profile), passwords)
    environment = airflow.environment(
        profile, ports, secrets, postgres.uri(name, "airflow", "psycopg2")
    ) | {"AIRFLOW__CORE__DAGS_FOLDER": str(dags), "PYTHONPATH": str(ROOT)}
    processes = Processes(
        profile.processes, profile.logs, airflow.plain_environment(), _interrupts()
    )
    api = AirflowApi(ports.ui, secrets.admin_password)
    redis = {"connection_id": "analytics_redis", "conn_type": "redis", "host": "127.0.0.1"}
    settings = SettingsFile(
        connections=[redis | {"port": valkey.port}],
        pools=[{"name": "closed", "slots": 0}],
        variables=[{"key": key, "value": json.dumps(value)} for key, value in variables.items()],
    )
    try:
        with (
            psycopg.connect(postgres.superuser_uri(name), autocommit=True) as metadata,
            httpx.Client(base_url=api.url, timeout=30, trust_env=False) as rest,
        ):
            began = datetime.now(UTC)
            processes.start("api-server", airflow.api_server(ports), environment)
            started = Stack(api, rest, processes, metadata, dags)
            started.wait("the API server's answer", api.log_in)
            login = {"username": airflow.ADMIN, "password": secrets.admin_password}
            token = rest.post("/auth/token", json=login).json()["access_token"]
            rest.headers["Authorization"] = f"Bearer {token}"
            api.import_settings(settings)
            services = ("scheduler", "dag-processor") + (("triggerer",) if triggerer else ())
            for service in services:
                processes.start(service, airflow.SERVICES[service], environment)
            for dag_id in (JOB, *variables):
                wait_for_dag(api, dag_id, began, processes.check)
            yield started
    finally:
        api.close()
        processes.stop()
        left = _processes_of(profile.airflow_home)
    assert not left, f"still running: {left}"


def _interrupts() -> Interrupts:
    """Make the demo's interrupts, but leave Ctrl-C to pytest."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    interrupts = Interrupts()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return interrupts


def _processes_of(airflow_home: Path) -> list[str]:
    """Return the processes, except this one, that were started for an Airflow home."""
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
