"""rfm_scoring run whole by `dag.test()`, against a real database."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.databases import Database
from tests.harness.simple_venues import (
    ARENA,
    CELLAR,
    CUSTOMERS_EACH,
    FAULT,
    VENUES,
    break_venue,
    fill,
    scored_customers,
)

from venue_analytics.demo.airflow import AIRFLOW
from venue_analytics.demo.profile import ROOT
from venue_analytics.demo.servers import ValkeyServer

pytestmark = pytest.mark.one_version
NOWHERE = "90000000-0000-4000-8000-000000000009"


@dataclass(frozen=True)
class Ended:
    """How a run ended, and all that it logged."""

    run_id: str
    state: str
    run_after: datetime
    tasks: list[dict[str, Any]]
    log: str

    def states(self) -> dict[str, str]:
        """The state of each task, by the label or else the id."""
        return {task["label"] or task["task_id"]: task["state"] for task in self.tasks}

    def tries(self, task_id: str) -> list[int]:
        """How often a task was tried, for each of its items in the order of their labels."""
        tasks = sorted(self.tasks, key=lambda task: task["label"] or "")
        return [task["try_number"] for task in tasks if task["task_id"] == task_id]


class DagRunner:
    """The process that runs the DAG."""

    def __init__(self, environment: dict[str, str], redis: str, log: Path) -> None:
        self._redis = redis
        self._log = log
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("run_dag.py")],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def run(
        self,
        database: Database,
        *,
        variable: str = '{"retries": 0}',
        conf: dict[str, Any] | None = None,
    ) -> Ended:
        """Run the DAG to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        begin = self._log.stat().st_size
        question = {
            "dag_file": str(ROOT / "dags/rfm_scoring.py"),
            "environment": {
                "AIRFLOW_CONN_ANALYTICS_DB": database.uri("analytics_jobs"),
                "AIRFLOW_CONN_ANALYTICS_REDIS": self._redis,
                "AIRFLOW_VAR_RFM_SCORING": variable,
            },
            "conf": conf or {},
        }
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        log = self._log.read_bytes()[begin:].decode()
        assert line, f"the process ended:\n{log[-3_000:]}"
        answer = json.loads(line)
        return Ended(
            **answer | {"run_after": datetime.fromisoformat(answer["run_after"]), "log": log}
        )

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()


@pytest.fixture(scope="module")
def dag(
    airflow_environment: dict[str, str],
    valkey: ValkeyServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DagRunner]:
    log = tmp_path_factory.mktemp("dag_run") / "log"
    runner = DagRunner(airflow_environment, valkey.uri, log)
    yield runner
    runner.stop()


@pytest.fixture
def superuser(simple: Database) -> Iterator[psycopg.Connection]:
    with simple.superuser() as connection:
        yield connection


def as_of_of(superuser: psycopg.Connection, run: Ended) -> datetime:
    row = superuser.execute("SELECT as_of FROM jobs.run WHERE run_id = %s", [run.run_id]).fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def test_small_venues_of_a_tenant_are_a_task_that_names_them_and_have_their_scores(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    fill(superuser)
    run = dag.run(simple)
    assert run.state == "success"
    assert run.states() == {
        "plan": "success",
        "2 venues: Arena, Ballroom": "success",
        "2 venues: Cellar, Dome": "success",
        "finish": "success",
        "ended_well": "success",
    }
    assert scored_customers(superuser) == {venue.name: CUSTOMERS_EACH for venue in VENUES}


def test_no_venues_at_all_are_a_green_run_that_says_so(dag: DagRunner, simple: Database) -> None:
    run = dag.run(simple)
    assert run.state == "success"
    assert run.states()["finish"] == "success"
    assert "venues: none to do" in run.log


def test_a_venue_that_may_succeed_later_is_tried_again(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    fill(superuser)
    break_venue(superuser, ARENA)
    run = dag.run(simple, variable='{"retries": 1, "retry_delay_seconds": 1}')
    assert run.tries("score") == [2, 1]
    assert run.tries("finish") == [1]


def test_a_venue_that_cannot_succeed_later_is_not_tried_again(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    fill(superuser)
    break_venue(superuser, CELLAR, "undefined_table")
    run = dag.run(simple, variable='{"retries": 1, "retry_delay_seconds": 1}')
    assert run.states()["2 venues: Cellar, Dome"] == "failed"
    assert run.tries("score") == [1, 1]
    assert "Dome" in scored_customers(superuser)
    assert f"the database does not fit: {FAULT}" in run.log


def test_a_manual_run_is_as_of_the_moment_after_which_it_was_to_run(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    run = dag.run(simple)
    assert as_of_of(superuser, run) == run.run_after


def test_the_parameter_as_of_wins(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    fill(superuser)
    # Of each venue's orders on the evenings of 10, 11 and 12 January, two evenings are past.
    run = dag.run(simple, conf={"as_of": "2026-01-12T01:00:00+01:00"})
    assert as_of_of(superuser, run) == datetime(2026, 1, 12, tzinfo=UTC)
    purchases = superuser.execute(
        "SELECT total_purchases FROM customer_rfm_scores WHERE venue_id = %s ORDER BY 1",
        [ARENA.venue_id],
    ).fetchall()
    assert purchases == [(1,), (2,), (2,)]


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"colour": "red"}, "colour = 'red': is not a parameter of this run; allowed: venues, as_"),
        ({"venues": [NOWHERE]}, f"venues = {NOWHERE}: must be ids of open venues"),
        ({"as_of": "yesterday"}, "as_of = 'yesterday': must be an ISO date or timestamp such as"),
        (
            {"as_of": (datetime.now(UTC) + timedelta(days=2)).isoformat()},
            "lies in the future; allowed: up to now",
        ),
    ],
    ids=["unknown key", "venue not there", "no moment", "as_of in the future"],
)
def test_what_is_not_allowed_fails_plan_at_its_first_try_and_is_named(
    dag: DagRunner, simple: Database, conf: dict[str, Any], words: str
) -> None:
    run = dag.run(simple, variable='{"retries": 3}', conf=conf)
    assert run.state == "failed"
    assert run.states()["plan"] == "failed"
    assert run.states()["finish"] == "failed"
    assert run.tries("plan") == [1]
    assert words in run.log
    assert "plan ended failed: no venue was done" in run.log


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ('{"cron": "0 2 * * *"', "Variable rfm_scoring is not valid JSON"),
        ('{"retries": -1}', "Variable rfm_scoring: retries = -1: Input should be greater than"),
    ],
)
def test_a_bad_variable_fails_plan_at_its_first_try_and_no_venue_is_done(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection, variable: str, words: str
) -> None:
    fill(superuser)
    run = dag.run(simple, variable=variable)
    assert run.state == "failed"
    assert run.states()["plan"] == "failed"
    assert run.tries("plan") == [1]
    assert words in run.log
    assert scored_customers(superuser) == {}


def test_two_runs_are_two_rows_of_history_of_one_deployment(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    runs = {dag.run(simple).run_id, dag.run(simple).run_id}
    rows = superuser.execute("SELECT run_id, deployment, outcome FROM jobs.run").fetchall()
    assert {run_id for run_id, _, _ in rows} == runs
    assert len({deployment for _, deployment, _ in rows}) == 1
    assert isinstance(rows[0][1], UUID)
    assert {outcome for _, _, outcome in rows} == {"succeeded"}


def test_a_dry_run_logs_who_would_move_under_the_settings_to_try(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    fill(superuser)
    assert dag.run(simple).state == "success"
    before = superuser.execute("SELECT xmin, ctid FROM customer_rfm_state ORDER BY 2").fetchall()
    run = dag.run(simple, conf={"dry_run": True, "settings": {"rule_set": "standard"}})
    assert run.state == "success"
    assert set(run.states().values()) == {"success"}
    assert "dry run, nothing was written: " in run.log
    assert " would move between segments." in run.log
    # long ago: of three customers at each of four venues, all are Lost or Hibernating
    assert re.search(r"Lost → .*: \d+ customers who spent [\d.]+ USD", run.log)
    after = superuser.execute("SELECT xmin, ctid FROM customer_rfm_state ORDER BY 2").fetchall()
    assert after == before


@pytest.mark.deep
def test_airflow_dags_test_scores_the_venues_and_exits_0(
    airflow_environment: dict[str, str],
    valkey: ValkeyServer,
    simple: Database,
    superuser: psycopg.Connection,
) -> None:
    # Airflow's own exits 1 after a good run of any DAG with a deadline (apache/airflow#73428).
    fill(superuser)
    ended = subprocess.run(
        [*AIRFLOW, "dags", "test", "rfm_scoring"],
        env=airflow_environment
        | {
            "AIRFLOW_CONN_ANALYTICS_DB": simple.uri("analytics_jobs"),
            "AIRFLOW_CONN_ANALYTICS_REDIS": valkey.uri,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3_000:]
    assert scored_customers(superuser) == {venue.name: CUSTOMERS_EACH for venue in VENUES}
