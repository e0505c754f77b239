"""A new job of 70 lines runs: by tenant, with an effect, a run parameter and a report.

It consists only of its folder, its tables and its DAG file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from tests.cli.command_line import CommandLine
from tests.dags.test_dag_run import DagRunner
from tests.databases import Database
from tests.harness.faults.night import Night
from tests.harness.faults.test_killed_at_every_statement import (
    HISTORY,
    OF_EACH_UNIT,
    OF_THE_BATCH,
    delete,
    kill_at_messages,
)
from tests.harness.faults.worker import Worker
from tests.harness.simple_venues import NORTH, SOUTH, VENUES, fill
from tests.new_job.jobs.postcards import JOB

from venue_analytics import jobs
from venue_analytics.demo.profile import ROOT
from venue_analytics.demo.servers import ValkeyServer

pytestmark = pytest.mark.one_version
HERE = Path(__file__).parent
TABLES = (HERE / "tables.sql").read_text()


@pytest.fixture
def database(new_database: Callable[[str | None], Database]) -> Database:
    made = new_database("simple")
    with made.superuser() as superuser:
        fill(superuser)
        superuser.execute(TABLES)
    return made


@pytest.fixture
def cli(
    tmp_path: Path, database: Database, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    monkeypatch.setattr(jobs, "__path__", [*jobs.__path__, str(HERE / "jobs")])
    return CommandLine(tmp_path, database, valkey)


def posted(folder: Path) -> list[str]:
    box = folder / "post-box"
    return sorted(box.read_text().splitlines()) if box.exists() else []


def cards(season: str) -> list[str]:
    return [f"{season} greetings to {name}" for name in ("Arena", "Ballroom", "Cellar", "Dome")]


def test_the_command_line_runs_the_job_and_shows_its_report(cli: CommandLine) -> None:
    ran = cli("run", "postcards", "--as-of", "2026-02-01")
    assert ran.code == 0, ran.err
    assert posted(cli.folder) == cards("spring")
    assert f"tenant {NORTH}" in ran.out
    assert f"tenant {SOUTH}" in ran.out
    assert "4 postcards are on their way." in ran.out
    assert "4 postcards are on their way." in cli("show-run", "postcards").out


def test_no_card_is_posted_twice(cli: CommandLine) -> None:
    for night in ("2026-02-01", "2026-02-01", "2026-02-02"):
        assert cli("run", "postcards", "--as-of", night).code == 0
    assert posted(cli.folder) == cards("spring")


def test_its_own_parameter_shapes_its_results(cli: CommandLine) -> None:
    night = ("run", "postcards", "--as-of", "2026-02-01")
    assert cli(*night).code == 0
    ran = cli(*night, "--parameter", "season=autumn", "--tenant", str(NORTH))
    assert ran.code == 0
    assert "season autumn" in ran.out
    assert posted(cli.folder) == [*cards("autumn")[:2], *cards("spring")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--parameter", "colour=red"),
            "colour: is not a parameter of postcards; allowed: season",
        ),
        (("--parameter", "season"), "--parameter 'season': must be NAME=VALUE"),
        (("--venue", str(NORTH)), "postcards works by tenant: use --tenant"),
        (("--dry-run",), "dry_run = 'True': is not a parameter of this run"),
        (("--tenant", str(SOUTH).replace("b", "c")), "must be ids of tenants that have a venue"),
    ],
    ids=["unknown", "no value", "no venue", "no dry run", "no tenant"],
)
def test_a_request_that_is_not_allowed_is_refused_by_name(
    cli: CommandLine, options: tuple[str, ...], words: str
) -> None:
    ended = cli("run", "postcards", *options)
    assert ended.code == 1
    assert words in ended.err
    assert posted(cli.folder) == []


def test_its_whole_dag_runs(
    database: Database, valkey: ValkeyServer, airflow_environment: dict[str, str], tmp_path: Path
) -> None:
    dags = {"AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"), "PYTHONPATH": str(ROOT)}
    runner = DagRunner(airflow_environment | dags, valkey.uri, tmp_path / "log")
    variable = json.dumps({"box": str(tmp_path / "post-box"), "retries": 0})
    run = runner.run(database, "postcards", variable=variable, conf={"season": "winter"})
    runner.stop()
    assert run.state == "success", run.log[-3_000:]
    assert run.states().keys() >= {f"tenant {NORTH}", f"tenant {SOUTH}"}
    assert "4 postcards are on their way." in run.log
    assert posted(tmp_path) == cards("winter")


def test_a_worker_may_be_killed_at_any_message(
    database: Database,
    redis_client: redis.Redis,
    valkey: ValkeyServer,
    new_worker: Callable[..., Worker],
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    """No card is posted twice, and each that is not recorded has a letter."""
    settings = JOB.settings(max_tasks=1, box=str(tmp_path / "post-box"))
    with database.superuser() as superuser:

        def new_night() -> Night:
            redis_client.flushall()
            delete(superuser, ["jobs.dead_letter_payload", "jobs.action", *HISTORY, "postcard"])
            (tmp_path / "post-box").unlink(missing_ok=True)
            return Night.plan(database, valkey.uri, JOB, settings=settings, tables=["postcard"])

        def faults_of(night: Night, _: dict[str, list[str]]) -> list[str]:
            (recorded,) = superuser.execute("SELECT array_agg(key) FROM postcard").fetchone() or ()
            letters = superuser.execute(
                "SELECT key FROM jobs.dead_letter WHERE kind = 'action' AND state = 'open'"
            ).fetchall()
            known = sorted([*(recorded or []), *(key for (key,) in letters)])
            faults = [] if known == sorted(all_keys) else [f"known: {known}"]
            lines = posted(tmp_path)
            if len(set(lines)) < len(lines) or len(lines) < len(recorded or []):
                faults.append(f"posted: {lines}")
            return faults

        all_keys = [f"spring {venue.id}" for venue in VENUES]
        each = ("INSERT INTO jobs.action", "UPDATE jobs.action", "INSERT INTO postcard")
        kinds = ((1, OF_THE_BATCH), (2, OF_EACH_UNIT), (4, each))
        every = 1 if pytestconfig.getoption("deep") else 4
        kill_at_messages(new_night, kinds, new_worker, False, every, faults_of)
