"""Airflow's processes: their environment and commands, and a client of its REST API."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from venue_analytics.demo.profile import ROOT, Ports, Profile, Secrets
from venue_analytics.demo.settings_file import SettingsFile

ADMIN = "admin"
AIRFLOW = (sys.executable, "-m", "airflow")
MIGRATE = (*AIRFLOW, "db", "migrate")
# The API server reads the logs from files on this machine, so no process has to serve them.
SERVICES = {
    "scheduler": (*AIRFLOW, "scheduler", "--skip-serve-logs"),
    "dag-processor": (*AIRFLOW, "dag-processor"),
    "triggerer": (*AIRFLOW, "triggerer", "--skip-serve-logs"),
}
PAGE = 100
LOG_LINES = 3


class AirflowError(RuntimeError):
    """Airflow rejected a request, or did not do something in time."""


@dataclass(frozen=True)
class Dag:
    """A DAG as Airflow last parsed it."""

    is_paused: bool
    parsed_at: datetime | None
    next_run_after: datetime | None


@dataclass(frozen=True)
class ImportFailure:
    """The error of the last parse of a DAG file; Airflow keeps it until a parse succeeds."""

    file: str
    error: str
    tried_at: datetime

    def __str__(self) -> str:
        return f"{self.file}:\n{self.error}"


@dataclass(frozen=True)
class Run:
    """A run of a DAG."""

    run_id: str
    state: str
    conf: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the run has succeeded or failed."""
        return self.state in ("success", "failed")

    @property
    def good(self) -> bool:
        """Whether the run has succeeded."""
        return self.state == "success"


@dataclass(frozen=True)
class Task:
    """A task of a run, or one item of a mapped task, which then has a label."""

    task_id: str
    map_index: int
    label: str | None
    state: str | None
    try_number: int
    seconds: float | None

    @property
    def name(self) -> str:
        """The name to show: the label if there is one."""
        return self.label or self.task_id

    @property
    def mapped(self) -> bool:
        """Whether this is one item of a mapped task."""
        return self.map_index >= 0


def environment(profile: Profile, ports: Ports, secrets: Secrets, metadata: str) -> dict[str, str]:
    """Return the variables that Airflow's processes need beyond the environment of every process.

    Args:
        profile: the profile.
        ports: the ports of this start.
        secrets: the profile's secrets.
        metadata: the address of the metadata database, for SQLAlchemy.
    """
    url = f"http://127.0.0.1:{ports.ui}"
    return {
        "AIRFLOW_HOME": str(profile.airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__FERNET_KEY": secrets.fernet_key,
        # On a busy machine a DAG file may exceed Airflow's default of 30 s, its process 50 s.
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "120",
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "150",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords_file(profile)),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__INSTANCE_NAME": "Venue analytics",
        "AIRFLOW__API__SECRET_KEY": secrets.api_secret_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.jwt_secret,
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def passwords_file(profile: Profile) -> Path:
    """Return the file from which the simple auth manager reads the admin's password."""
    return profile.directory / "passwords.json"


def api_server(ports: Ports) -> tuple[str, ...]:
    """Return the command that serves UI and API, on this machine only."""
    return (
        *AIRFLOW,
        "api-server",
        "--host",
        "127.0.0.1",
        "--port",
        str(ports.ui),
        "--workers",
        "1",
    )


def plain_environment() -> dict[str, str]:
    """Return this process's environment without the settings of another Airflow."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    # The tasks must reach the API server on this machine without a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        plain[name] = ",".join(filter(None, (plain.get(name), "127.0.0.1,localhost")))
    if sys.platform == "darwin":
        # Forked workers that look up the system's proxies crash on macOS.
        plain["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
        plain["NO_PROXY"] = plain["no_proxy"] = "*"
    return plain


class AirflowApi:
    """A client of one Airflow's REST API, logged in as admin."""

    def __init__(self, port: int, password: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._password = password
        self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def log_in(self) -> bool:
        """Log in; return whether that succeeded.

        Only this demo's server knows the password, so another server on this port is not mistaken
        for it.
        """
        login = {"username": ADMIN, "password": self._password}
        try:
            answer = self._client.post("/auth/token", json=login)
        except httpx.TransportError:
            return False
        if answer.status_code != httpx.codes.CREATED:
            return False
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return True

    def import_settings(self, settings: SettingsFile) -> None:
        """Import the connections, pools and Variables of the settings file.

        Existing connections are replaced, because ports change. Existing pools and Variables are
        kept, because they may have been edited.
        """
        self._create("connections", settings.connections, "overwrite")
        self._create("pools", settings.pools, "skip")
        self._create("variables", settings.variables, "skip")

    def dag(self, dag_id: str) -> Dag | None:
        """Return a DAG, or None if Airflow does not know it yet."""
        answer = self._client.get(f"/api/v2/dags/{dag_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        found = _checked(answer)
        return Dag(
            is_paused=found["is_paused"],
            parsed_at=_time(found["last_parsed_time"]),
            next_run_after=_time(found["next_dagrun_run_after"]),
        )

    def import_failures(self, since: datetime) -> list[ImportFailure]:
        """Return the DAG files that Airflow failed to parse since then."""
        found = _checked(self._client.get("/api/v2/importErrors"))["import_errors"]
        failures = [
            ImportFailure(
                file=error["filename"],
                error=error["stack_trace"],
                tried_at=datetime.fromisoformat(error["timestamp"]),
            )
            for error in found
        ]
        return [failure for failure in failures if failure.tried_at >= since]

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG, so that the scheduler creates its runs."""
        _checked(self._client.patch(f"/api/v2/dags/{dag_id}", json={"is_paused": False}))

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> Run:
        """Trigger a run, and return it."""
        body = {"logical_date": None, "conf": dict(conf)}
        return _run(_checked(self._client.post(f"/api/v2/dags/{dag_id}/dagRuns", json=body)))

    def newest_runs(self, dag_id: str) -> list[Run]:
        """Return the newest runs of a DAG, at most 100."""
        query: dict[str, str | int] = {"order_by": "-run_after", "limit": PAGE}
        answer = self._client.get(f"/api/v2/dags/{dag_id}/dagRuns", params=query)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return []
        return [_run(found) for found in _checked(answer)["dag_runs"]]

    def run(self, dag_id: str, run_id: str) -> Run:
        """Return the current state of a run."""
        return _run(_checked(self._client.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")))

    def tasks(self, dag_id: str, run_id: str) -> list[Task]:
        """Return the current state of the tasks of a run."""
        tasks: list[Task] = []
        while True:
            page = _checked(
                self._client.get(
                    f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances",
                    params={"limit": PAGE, "offset": len(tasks)},
                )
            )
            tasks += [
                Task(
                    task_id=found["task_id"],
                    map_index=found["map_index"],
                    label=found["rendered_map_index"],
                    state=found["state"],
                    try_number=found["try_number"],
                    seconds=found["duration"],
                )
                for found in page["task_instances"]
            ]
            if not page["task_instances"] or len(tasks) >= page["total_entries"]:
                return tasks

    def last_errors(self, dag_id: str, run_id: str, task: Task) -> list[str]:
        """Return the last 3 error lines in the log of a task's last try, oldest first."""
        answer = self._client.get(
            f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task.task_id}"
            f"/logs/{task.try_number}",
            params={"map_index": task.map_index, "full_content": True},
            headers={"Accept": "application/json"},
        )
        if answer.is_error:
            return []
        return [
            line
            for message in answer.json()["content"]
            if isinstance(message, dict) and message.get("level") in ("error", "critical")
            for line in _error_lines(message)
        ][-LOG_LINES:]

    def _create(self, kind: str, entities: list[dict[str, Any]], if_there: str) -> None:
        action = {"action": "create", "entities": entities, "action_on_existence": if_there}
        answer = _checked(self._client.patch(f"/api/v2/{kind}", json={"actions": [action]}))
        if errors := answer["create"]["errors"]:
            raise AirflowError(f"Airflow rejected the {kind} of airflow_settings.yaml: {errors}")


def _error_lines(message: Mapping[str, Any]) -> list[str]:
    causes = [
        f"{cause['exc_type']}: {cause['exc_value']}" for cause in message.get("error_detail") or []
    ]
    return causes or [str(message["event"])]


def _run(found: Mapping[str, Any]) -> Run:
    return Run(found["dag_run_id"], found["state"], found["conf"] or {})


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _checked(answer: httpx.Response) -> Any:
    if answer.is_error:
        request = answer.request
        raise AirflowError(
            f"Airflow answered {answer.status_code} to {request.method} {request.url.path}: "
            f"{answer.text[:500]}"
        )
    return answer.json()
