"""DAG files parse whatever their Variable holds, without a database, and import little."""

from __future__ import annotations

import ast
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from tests.conftest import isolated_environment
from tests.harness.settings_texts import texts

from venue_analytics.demo.profile import ROOT
from venue_analytics.harness import SettingsError
from venue_analytics.harness.settings import read_settings
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
JOBS = [file.stem for file in DAG_FILES]
# Each costs a process that parses a DAG file more than the file itself does.
HEAVY = ("pandas", "numpy", "alembic", "typer", "redis", "pydantic_settings")
DEFAULT_CRON = "0 2 * * *"


@dataclass(frozen=True)
class Parser:
    """The process that parses; its metadata database is a port on which nobody answers."""

    process: subprocess.Popen[str]
    metadata: socket.socket

    def parse(self, variable: str | None) -> dict[str, Any]:
        """Parse all DAG files with that text in the Variable rfm_scoring."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(variable) + "\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def dag(self, variable: str | None) -> dict[str, Any]:
        """Parse, and give the DAG rfm_scoring."""
        told = self.parse(variable)
        assert told["import_errors"] == {}
        dag: dict[str, Any] = told["dags"]["rfm_scoring"]
        return dag

    @cached_property
    def first(self) -> dict[str, Any]:
        """What came of the first parsing, without a Variable."""
        return self.parse(None)

    @property
    def asked_for_metadata(self) -> bool:
        """Whether anybody has tried to reach the metadata database."""
        try:
            self.metadata.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parser]:
    with socket.create_server(("127.0.0.1", 0)) as metadata:
        metadata.setblocking(False)
        port = metadata.getsockname()[1]
        uri = f"postgresql+psycopg2://nobody@127.0.0.1:{port}/nothing?connect_timeout=2"
        home = tmp_path_factory.mktemp("parsing")
        with (home / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("parse_dag.py")],
                env=isolated_environment(home, uri),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        parser = Parser(process, metadata)
        assert parser.first["import_errors"] == {}
        yield parser
        process.communicate()


@pytest.fixture(params=JOBS)
def dag(request: pytest.FixtureRequest, parser: Parser) -> dict[str, Any]:
    found: dict[str, Any] = parser.first["dags"][request.param]
    return found


def test_every_dag_file_holds_the_dag_of_its_name(parser: Parser) -> None:
    assert sorted(parser.first["dags"]) == JOBS


def test_parsing_needs_no_database(parser: Parser) -> None:
    assert parser.first["import_errors"] == {}
    assert not parser.asked_for_metadata


def test_parsing_reads_one_variable_a_dag(parser: Parser) -> None:
    assert sorted(parser.first["variables_read"]) == JOBS


@pytest.mark.parametrize("package", HEAVY)
def test_a_dag_file_imports_nothing_heavy(parser: Parser, package: str) -> None:
    roots = {module.partition(".")[0] for module in parser.first["imported"]}
    assert package not in roots


@pytest.mark.parametrize("provider", ["postgres", "redis"])
def test_a_dag_file_imports_no_hook(parser: Parser, provider: str) -> None:
    assert f"airflow.providers.{provider}.hooks.{provider}" not in parser.first["imported"]


@pytest.mark.parametrize("module", ["demo", "report", "__main__", "database.migrate"])
def test_a_dag_file_imports_none_of_the_command_lines_modules(parser: Parser, module: str) -> None:
    assert "venue_analytics.orchestration" in parser.first["imported"]
    assert f"venue_analytics.{module}" not in parser.first["imported"]


@pytest.mark.parametrize("file", DAG_FILES, ids=JOBS)
def test_a_dag_file_is_wiring(file: Path) -> None:
    assert len(file.read_text().splitlines()) < 60


def test_the_docs_are_the_files_docstring(dag: dict[str, Any]) -> None:
    docstring = ast.get_docstring(ast.parse(Path(dag["file"]).read_text()), clean=False)
    assert docstring is not None
    assert dag["doc_md"].strip() == docstring.strip()
    assert "### Settings\n" in docstring
    assert "### When it is red\n" in docstring


def test_a_dag_runs_one_interval_at_a_time_and_only_the_last(dag: dict[str, Any]) -> None:
    assert dag["max_active_runs"] == 1
    assert dag["catchup"] is False
    assert dag["timetable"] == "CronDataIntervalTimetable"


def test_a_dag_has_its_tag_and_no_other(dag: dict[str, Any]) -> None:
    assert dag["tags"] == ["venue-analytics"]


def test_every_task_has_retries_and_a_timeout(dag: dict[str, Any]) -> None:
    for name, task in dag["tasks"].items():
        assert task["execution_timeout_seconds"] > 0, name
        # Finish is the verdict: trying it again would give the same.
        assert task["retries"] == (0 if name == "finish" else 3), name


def test_every_param_is_typed_titled_and_described(dag: dict[str, Any]) -> None:
    assert set(dag["params"]) == {"venues", "as_of", "force", "dry_run", "settings"}
    for name, param in dag["params"].items():
        assert param["type"], name
        assert param["title"], name
        assert param["description"], name


def test_the_mapped_task_is_named_by_its_venues(dag: dict[str, Any]) -> None:
    (mapped,) = [task for task in dag["tasks"].values() if task["mapped"]]
    assert mapped["map_index_template"] == "{{ task.op_kwargs['batch']['label'] }}"


def test_the_leaves_that_colour_a_run_are_the_mapped_task_and_the_last_one(
    dag: dict[str, Any],
) -> None:
    # whether a teardown fails the run: see ended_well
    assert dag["teardowns"] == {"finish": False, "ended_well": True}
    assert dag["tasks"]["plan"]["upstream"] == []
    assert dag["tasks"]["score"]["upstream"] == ["plan"]
    assert dag["tasks"]["finish"]["upstream"] == ["score"]
    assert dag["tasks"]["ended_well"]["upstream"] == ["finish"]


def test_the_variable_sets_schedule_retries_timeout_pool_and_parallelism(parser: Parser) -> None:
    dag = parser.dag(
        '{"cron": "15 4 * * *", "timezone": "Europe/Berlin", "retries": 5, "timeout_minutes": 7,'
        ' "pool": "venue_analytics", "max_parallel_venues": 3}'
    )
    assert (dag["cron"], dag["timezone"]) == ("15 4 * * *", "Europe/Berlin")
    assert dag["tasks"]["score"] == {
        "mapped": True,
        "map_index_template": "{{ task.op_kwargs['batch']['label'] }}",
        "at_a_time": 3,
        "retries": 5,
        "execution_timeout_seconds": 420,
        "pool": "venue_analytics",
        "upstream": ["plan"],
    }


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ('{"cron": "0 5 * * *"', "Variable rfm_scoring is not valid JSON"),
        ('["0 5 * * *"]', "Variable rfm_scoring must be a JSON object"),
        ('{"cron": "0 5 * * *", "colour": "red"}', "colour = 'red': is not a setting of this job"),
        ('{"cron": "0 5 * * *", "retries": "3"}', "retries = '3': Input should be a valid integer"),
        ('{"cron": "every night"}', "cron = 'every night': must be a cron expression"),
        ('{"cron": "0 5 * * *", "timezone": "Berlin"}', "timezone = 'Berlin': must be an IANA"),
        (
            '{"cron": "0 5 * * *", "recency_days": [180, 90, 60, 30]}',
            "recency_days = [180, 90, 60, 30]: must be four rising whole numbers",
        ),
        ('{"cron": "0 5 * * *", "vip_min_total": 8}', "vip_min_total > regular_min_total"),
    ],
    ids=[
        "malformed JSON",
        "no object",
        "unknown key",
        "wrong type",
        "bad cron",
        "bad timezone",
        "falling days",
        "thresholds out of order",
    ],
)
def test_a_bad_variable_leaves_the_dag_on_the_default_schedule_with_the_fault_in_its_docs(
    parser: Parser, variable: str, told: str
) -> None:
    dag = parser.dag(variable)
    assert (dag["cron"], dag["timezone"]) == (DEFAULT_CRON, "UTC")
    assert dag["tags"] == ["settings-fault", "venue-analytics"]
    fault, runbook = dag["doc_md"].split("# RFM scoring")
    assert fault.startswith("### Settings fault")
    assert told in fault
    assert "### When it is red" in runbook
    assert dag["tasks"]["plan"]["retries"] == 3


def fault_of(text: str) -> str | None:
    try:
        read_settings(RfmScoringSettings, text, name="Variable rfm_scoring")
    except SettingsError as error:
        return str(error)
    return None


@pytest.mark.fault("settings-malformed")
@settings(max_examples=20 * settings().max_examples, suppress_health_check=[HealthCheck.too_slow])
@given(text=texts.filter(lambda text: not re.search("[\0\ud800-\udfff]", text)))
@example(text='{"pool": "a\\u0000b"}')
@example(text='{"```\\n# Everything is fine": 1}')
def test_whatever_the_variable_holds_the_dag_is_there_and_tagged_if_it_is_wrong(
    parser: Parser, text: str
) -> None:
    # too_slow: see the texts' own test. No process's environment holds NUL or half a pair.
    dag = parser.dag(text)
    fault = fault_of(text)
    if fault:
        assert dag["tags"] == ["settings-fault", "venue-analytics"]
        if dag["timetable"] == "NullTimetable":
            assert json.loads(text)["enabled"] is False
        else:
            assert (dag["cron"], dag["timezone"]) == (DEFAULT_CRON, "UTC")
        assert f"```\n{fault}\n```" in dag["doc_md"]
    else:
        assert dag["tags"] == ["venue-analytics"]
    assert dag["doc_md"].replace("\n", "").isprintable()
    # no database takes it
    assert "\0" not in dag["tasks"]["score"]["pool"]
    assert set(dag["tasks"]) == {"plan", "score", "finish", "ended_well"}
    next_run = dag["next_run"]
    assert next_run is None or datetime.fromisoformat(next_run).tzinfo is not None


@pytest.mark.parametrize(
    "cron",
    [
        "*/5 * * * *",
        "0 2 29 2 *",
        "0 2 30 2 *",
        "0 2 31 4,6,9,11 *",
        "0 2 L * *",
        "0 2 * * 7",
        "0 2 * * sun#2",
        "0 2 * * L5",
        "H 2 * * *",
        "0 2 1 1 mon",
        "60-0 2 * * *",
        "0 22-2 * * *",
    ],
)
def test_a_cron_is_refused_or_gives_a_next_run(parser: Parser, cron: str) -> None:
    dag = parser.dag(json.dumps({"cron": cron}))
    assert dag["cron"] in (cron, DEFAULT_CRON)
    assert datetime.fromisoformat(dag["next_run"]).tzinfo is not None


def test_a_cron_of_random_moments_is_refused(parser: Parser) -> None:
    assert "settings-fault" in parser.dag('{"cron": "R 2 * * *"}')["tags"]


def test_a_job_that_is_not_enabled_has_no_schedule_and_no_fault(parser: Parser) -> None:
    dag = parser.dag('{"enabled": false}')
    assert (dag["timetable"], dag["cron"]) == ("NullTimetable", None)
    assert dag["tags"] == ["venue-analytics"]


@pytest.mark.parametrize("fault", ['"cron": "at night"', '"no_such_setting": 1'])
def test_a_job_that_is_not_enabled_stays_so_when_another_setting_is_wrong(
    parser: Parser, fault: str
) -> None:
    dag = parser.dag(f'{{"enabled": false, {fault}}}')
    assert dag["timetable"] == "NullTimetable"
    assert dag["tags"] == ["settings-fault", "venue-analytics"]


@pytest.mark.parametrize("variable", ['{"enabled": "false"}', '{"enabled": false', "[false]", "0"])
def test_what_does_not_say_that_a_job_is_off_leaves_its_schedule(
    parser: Parser, variable: str
) -> None:
    dag = parser.dag(variable)
    assert (dag["timetable"] != "NullTimetable", dag["cron"]) == (True, DEFAULT_CRON)
    assert dag["tags"] == ["settings-fault", "venue-analytics"]


def test_parsing_again_gives_the_same(parser: Parser) -> None:
    assert parser.dag(None) == parser.dag(None) == parser.first["dags"]["rfm_scoring"]
