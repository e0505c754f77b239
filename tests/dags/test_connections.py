"""Airflow's connections: the providers' hooks open the same session as the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import isolated_environment
from tests.dags.open_connections import described
from tests.databases import Database

from venue_analytics.database.connection import NEVER_BY_ITSELF, DatabaseAddress, connect
from venue_analytics.demo.profile import ROOT
from venue_analytics.demo.servers import ValkeyServer
from venue_analytics.harness.redis_server import RedisAddress

pytestmark = pytest.mark.one_version
#: The session of a job whose statements may take 90 seconds.
OURS = {
    "application_name": "a job",
    "autocommit": True,
    "client_connection_check_interval": "1000",
    "current_user": "analytics_jobs",
    "idle_in_transaction_session_timeout": "30000",
    "lock_timeout": "60000",
    "prepare_threshold": NEVER_BY_ITSELF,
    "statement_timeout": "90000",
    "TimeZone": "UTC",
}


class Task:
    """A process that opens connections as a task does."""

    def __init__(self, home: Path) -> None:
        with (home / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.dags.open_connections"],
                cwd=ROOT,
                env=isolated_environment(home, "postgresql+psycopg2://nobody@127.0.0.1:1/unused"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __call__(self, server: str, value: str, **how: Any) -> dict[str, Any]:
        """Open a connection to `database` or `redis` with this value."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"server": server, "value": value} | how) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def error(self, server: str, value: str) -> str:
        """Open a connection that must fail, and return the error."""
        return str(self(server, value)["error"])


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    started = Task(tmp_path_factory.mktemp("connections"))
    yield started
    started.process.communicate()


def in_json(database: Database, **extra: Any) -> str:
    """Return Airflow's JSON of a database connection, for a superuser with a password."""
    fields = {
        "conn_type": "postgres",
        "host": str(database.server.socket_directory),
        "login": "postgres",
        "password": "hunter2",
        "schema": database.name,
        "extra": extra,
    }
    return json.dumps(fields)


def of_command_line(value: str) -> dict[str, Any]:
    """Return the settings of the command line's session for the same connection."""
    address = DatabaseAddress.parse(value, name="the test's database")
    with connect(address, application_name="a job", statement_timeout_seconds=90) as connection:
        return described(connection)


def test_a_task_has_the_session_of_the_command_line(task: Task, simple: Database) -> None:
    for value in (simple.uri("analytics_jobs"), in_json(simple)):
        session = task("database", value)
        assert session == of_command_line(value)
        assert {key: session[key] for key in OURS} == OURS
        assert session["libpq"]["connect_timeout"] == "10"
        assert session["libpq"]["keepalives_idle"] == "30"


def test_an_extra_is_honoured_but_does_not_override_the_jobs_own_settings(
    task: Task, simple: Database
) -> None:
    their_options = (
        "-c work_mem=12345kB -c timezone=Asia/Tokyo -c role=analytics_owner -c lock_timeout=0 "
        "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
    )
    value = in_json(
        simple,
        sslmode="disable",
        options=their_options,
        application_name="theirs",
        autocommit=False,
        prepare_threshold=0,
        connect_timeout=600,
        keepalives_idle=600,
        cursor="dictcursor",
        host="/nowhere",
        port="1",
        user="nobody",
        password="theirs",  # noqa: S106
        dbname="nowhere",
    )
    plain = of_command_line(in_json(simple))
    theirs = {
        "work_mem": "12345",
        "libpq": plain["libpq"] | {"sslmode": "disable"},
    }
    assert task("database", value) == of_command_line(value) == plain | theirs


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"sslmode": "surely"}, 'invalid sslmode value: "surely"'),
        ({"colour": "red"}, 'analytics_db: invalid connection option "colour"; see its extra'),
        (["red"], "analytics_db cannot be read: must be postgresql://"),
    ],
)
def test_the_error_of_a_bad_extra_does_not_show_the_password(
    task: Task, simple: Database, extra: Any, words: str
) -> None:
    error = task.error("database", json.dumps(json.loads(in_json(simple)) | {"extra": extra}))
    assert words in error
    assert "hunter2" not in error


def test_the_error_of_a_login_without_the_jobs_role_shows_the_grant(
    task: Task, simple: Database
) -> None:
    error = task.error("database", simple.uri("analytics_reader"))
    assert error.startswith("BadConnectionError: the database login may not act as analytics_jobs")
    assert "GRANT analytics_jobs TO that login" in error


@pytest.mark.parametrize("where", ["7", "?db=7", "3?db=7"])
def test_a_task_uses_the_redis_database_of_the_command_line(
    task: Task, valkey: ValkeyServer, where: str
) -> None:
    uri = valkey.uri.removesuffix("0") + where
    with RedisAddress.parse(uri, name="the test's Redis").client() as client:
        assert client.client_info()["db"] == 7
    client_info = task("redis", uri)
    assert client_info["db"] == 7
    assert "apache-airflow-providers-redis" in client_info["lib-name"]


def test_a_task_gives_up_a_redis_that_hangs_after_one_timeout(
    task: Task, server_directory: Path
) -> None:
    with ValkeyServer(server_directory / "hanging") as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            answer = task("redis", server.uri, timeout_seconds=1)
        finally:
            os.kill(server.pid, signal.SIGCONT)
    assert answer["error"].startswith("TimeoutError")
    assert 1 <= answer["seconds"] < 3


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            "redis://:hunter2@h/0?cluster=true",
            "analytics_redis: cluster = 'true': must be left out",
        ),
        ("rediss://:hunter2@h/0", "analytics_redis: its type is rediss: must be redis, with"),
        ("redis://:hunter2@h/first", "analytics_redis: db = 'first': must be the number"),
        ("http://:hunter2@h/0", "analytics_redis must be redis://"),
    ],
)
def test_the_error_of_an_unusable_redis_does_not_show_the_password(
    task: Task, value: str, words: str
) -> None:
    error = task.error("redis", value)
    assert words in error
    assert "hunter2" not in error
    kind = "BadConnectionError" if value.startswith("http") else "PermanentError"
    assert error.startswith(kind)
