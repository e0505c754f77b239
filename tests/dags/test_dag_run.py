"""The whole DAG of every job, run by `dag.test()` against a real database."""

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
from psycopg import sql
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
from tests.jobs.facts import facts_of

from venue_analytics.demo.airflow import AIRFLOW
from venue_analytics.demo.servers import ValkeyServer
from venue_analytics.harness.request import parameter_schemas
from venue_analytics.harness.unit import UnitKind
from venue_analytics.jobs import JOBS

pytestmark = pytest.mark.one_version
NOWHERE = "90000000-0000-4000-8000-000000000009"
#: The job of the tests that are about Airflow or the harness, not about a job.
RFM_SCORING = "rfm_scoring"
of_every_job = pytest.mark.parametrize("job", JOBS)


@dataclass(frozen=True)
class Ended:
    """How a run ended, and everything that it logged."""

    run_id: str
    state: str
    run_after: datetime
    tasks: list[dict[str, Any]]
    log: str

    def states(self) -> dict[str, str]:
        """Return the state of each task by its label, or else its id."""
        return {task["label"] or task["task_id"]: task["state"] for task in self.tasks}

    def tries(self, task_id: str) -> list[int]:
        """Return the number of tries of each item of a task, ordered by label."""
        tasks = sorted(self.tasks, key=lambda task: task["label"] or "")
        return [task["try_number"] for task in tasks if task["task_id"] == task_id]


class DagRunner:
    """A process that runs DAGs."""

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
        job: str = RFM_SCORING,
        *,
        variable: str = '{"retries": 0}',
        conf: dict[str, Any] | None = None,
    ) -> Ended:
        """Run the DAG of a job until it ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        begin = self._log.stat().st_size
        question = {
            "job": job,
            "environment": {
                "AIRFLOW_CONN_ANALYTICS_DB": database.uri("analytics_jobs"),
                "AIRFLOW_CONN_ANALYTICS_REDIS": self._redis,
                f"AIRFLOW_VAR_{job.upper()}": variable,
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


def kept(superuser: psycopg.Connection, job: str) -> dict[str, list[Any]]:
    """Return the rows of a job's tables, with the columns that change when a row is rewritten."""
    return {
        table: superuser.execute(
            sql.SQL("SELECT xmin::text, ctid::text, t::text FROM public.{} AS t ORDER BY 2").format(
                sql.Identifier(table)
            )
        ).fetchall()
        for table in facts_of(job).tables
    }


def outcomes(superuser: psycopg.Connection) -> dict[UUID, str]:
    """Return how the attempt at each unit ended."""
    rows = superuser.execute("SELECT unit_id, outcome FROM jobs.unit_run").fetchall()
    return dict(rows)


# tests of every job ------------------------------------------------------------------------


@of_every_job
def test_a_run_succeeds_and_does_every_unit_that_the_source_lists(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection, job: str
) -> None:
    fill(superuser)
    run = dag.run(simple, job)
    assert run.state == "success"
    assert set(run.states().values()) == {"success"}
    if JOBS[job].due is None:
        is_by_venue = JOBS[job].unit is UnitKind.VENUE
        units = {venue.id if is_by_venue else venue.tenant_id for venue in VENUES}
        assert outcomes(superuser) == dict.fromkeys(units, "succeeded")
    first_night = facts_of(job).first_night
    assert {table: len(rows) for table, rows in kept(superuser, job).items() if rows} == first_night


@of_every_job
def test_a_run_without_units_succeeds_and_logs_that(
    dag: DagRunner, simple: Database, job: str
) -> None:
    run = dag.run(simple, job)
    assert run.state == "success"
    assert run.states()["finish"] == "success"
    assert f"{JOBS[job].unit.plural}: none to do" in run.log


@of_every_job
def test_parameters_that_are_not_allowed_fail_plan_at_its_first_try_and_are_named(
    dag: DagRunner, simple: Database, job: str
) -> None:
    known = parameter_schemas(JOBS[job])
    conf = {"colour": "red", "as_of": "yesterday", "dry_run": True}
    run = dag.run(simple, job, variable='{"retries": 3}', conf=conf)
    assert_refused_by_plan(run)
    refused = "is not a parameter of this run; allowed: " + ", ".join(known)
    assert f"colour = 'red': {refused}" in run.log
    assert "as_of = 'yesterday': must be an ISO date or timestamp such as" in run.log
    assert (f"dry_run = 'True': {refused}" in run.log) is (JOBS[job].preview is None)


@of_every_job
def test_a_variable_that_is_not_allowed_fails_plan_at_its_first_try_and_nothing_is_done(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection, job: str
) -> None:
    fill(superuser)
    run = dag.run(simple, job, variable='{"max_tasks": 0}')
    assert_refused_by_plan(run)
    assert f"Variable {job}: max_tasks = 0: Input should be greater than" in run.log
    assert not any(kept(superuser, job).values())


def assert_refused_by_plan(run: Ended) -> None:
    assert run.state == "failed"
    assert run.states()["plan"] == "failed"
    assert run.states()["finish"] == "failed"
    assert run.tries("plan") == [1]
    assert "plan ended failed: nothing was done" in run.log


@pytest.mark.parametrize("job", [name for name in JOBS if JOBS[name].preview])
def test_a_dry_run_logs_what_the_settings_would_change_and_writes_nothing(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection, job: str
) -> None:
    dry_run = facts_of(job).dry_run
    assert dry_run is not None
    fill(superuser)
    assert dag.run(simple, job).state == "success"
    before = kept(superuser, job)
    run = dag.run(simple, job, conf={"dry_run": True, "settings": dict(dry_run.settings)})
    assert run.state == "success"
    assert set(run.states().values()) == {"success"}
    assert "dry run: nothing was written" in run.log
    for pattern in dry_run.log:
        assert re.search(pattern, run.log), pattern
    assert kept(superuser, job) == before


# tests of Airflow and the harness ----------------------------------------------------------


def test_small_venues_of_a_tenant_share_a_task_that_names_them(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    fill(superuser)
    run = dag.run(simple)
    assert run.states() == {
        "plan": "success",
        "2 venues: Arena, Ballroom": "success",
        "2 venues: Cellar, Dome": "success",
        "finish": "success",
        "ended_well": "success",
    }
    assert scored_customers(superuser) == {venue.name: CUSTOMERS_EACH for venue in VENUES}


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


def test_a_manual_run_is_as_of_its_run_after(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    run = dag.run(simple)
    assert as_of_of(superuser, run) == run.run_after


def test_the_parameter_as_of_overrides_run_after(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    fill(superuser)
    # Each venue has orders on the evenings of 10, 11 and 12 January; two evenings are past.
    run = dag.run(simple, conf={"as_of": "2026-01-12T01:00:00+01:00"})
    assert as_of_of(superuser, run) == datetime(2026, 1, 12, tzinfo=UTC)
    purchases = superuser.execute(
        "SELECT total_purchases FROM customer_rfm_scores WHERE venue_id = %s ORDER BY 1",
        [ARENA.id],
    ).fetchall()
    assert purchases == [(1,), (2,), (2,)]


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"venues": [NOWHERE]}, f"venues = {NOWHERE}: must be ids of open venues"),
        (
            {"as_of": (datetime.now(UTC) + timedelta(days=2)).isoformat()},
            "lies in the future; allowed: up to now",
        ),
    ],
    ids=["venue not there", "as_of in the future"],
)
def test_a_parameter_refused_by_source_or_clock_fails_plan_at_its_first_try_and_is_named(
    dag: DagRunner, simple: Database, conf: dict[str, Any], words: str
) -> None:
    run = dag.run(simple, variable='{"retries": 3}', conf=conf)
    assert_refused_by_plan(run)
    assert words in run.log


def test_malformed_json_in_the_variable_fails_plan_at_its_first_try(
    dag: DagRunner, simple: Database
) -> None:
    run = dag.run(simple, variable='{"cron": "0 2 * * *"')
    assert_refused_by_plan(run)
    assert "Variable rfm_scoring is not valid JSON" in run.log


def test_two_runs_have_two_rows_in_history_and_the_same_deployment(
    dag: DagRunner, simple: Database, superuser: psycopg.Connection
) -> None:
    runs = {dag.run(simple).run_id, dag.run(simple).run_id}
    rows = superuser.execute("SELECT run_id, deployment, outcome FROM jobs.run").fetchall()
    assert {run_id for run_id, _, _ in rows} == runs
    assert len({deployment for _, deployment, _ in rows}) == 1
    assert isinstance(rows[0][1], UUID)
    assert {outcome for _, _, outcome in rows} == {"succeeded"}


@pytest.mark.deep
def test_airflow_dags_test_scores_the_venues_and_exits_0(
    airflow_environment: dict[str, str],
    valkey: ValkeyServer,
    simple: Database,
    superuser: psycopg.Connection,
) -> None:
    # Airflow's own command exits 1 after any run with a deadline succeeds (apache/airflow#73428).
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
