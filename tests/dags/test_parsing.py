"""DAG files parse whatever their Variable holds, need no database, and import little."""

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
from tests.harness.settings_texts import texts_of
from tests.jobs.facts import facts_of

from venue_analytics.demo.profile import ROOT
from venue_analytics.harness import JobSettings, SettingsError, TenantSettings, VenueSettings
from venue_analytics.harness.settings import read_settings
from venue_analytics.jobs import JOBS

# Importing any of these takes longer than parsing a DAG file.
HEAVY = ("pandas", "numpy", "alembic", "typer", "redis", "rich", "pydantic_settings")
#: A cron that is not the default of any job.
OTHER_CRON = '"cron": "7 5 * * *"'
of_every_job = pytest.mark.parametrize("job", JOBS)
with_texts = settings(
    max_examples=20 * settings().max_examples, suppress_health_check=[HealthCheck.too_slow]
)


@dataclass(frozen=True)
class Parser:
    """A process that parses DAG files; its metadata database is a port that never answers."""

    process: subprocess.Popen[str]
    metadata: socket.socket

    def parse(self, job: str | None = None, text: str | None = None) -> dict[str, Any]:
        """Parse the file of a job with this text in its Variable, or all files."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"job": job, "text": text}) + "\n")
        self.process.stdin.flush()
        parsed: dict[str, Any] = json.loads(self.process.stdout.readline())
        return parsed

    def dag(self, job: str, text: str | None) -> dict[str, Any]:
        """Parse the file of a job; return its DAG."""
        parsed = self.parse(job, text)
        assert parsed["import_errors"] == {}
        dag: dict[str, Any] = parsed["dags"][job]
        return dag

    @cached_property
    def first(self) -> dict[str, Any]:
        """The result of the first parsing, of all files without a Variable."""
        return self.parse()

    @property
    def asked_for_metadata(self) -> bool:
        """Whether the process has tried to reach the metadata database."""
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


def mapped_task(dag: dict[str, Any]) -> str:
    """Return the id of the only mapped task of a DAG."""
    (name,) = [name for name, task in dag["tasks"].items() if task["mapped"]]
    return str(name)


def schedule(dag: dict[str, Any]) -> tuple[str, str]:
    return dag["cron"], dag["timezone"]


def default_schedule(job: str) -> tuple[str, str]:
    defaults = defaults_of(job)
    return defaults.cron, defaults.timezone


def defaults_of(job: str) -> JobSettings:
    defaults: JobSettings = JOBS[job].settings()
    return defaults


def test_the_dag_files_are_named_like_the_jobs(parser: Parser) -> None:
    assert sorted(parser.first["dags"]) == sorted(JOBS)
    assert sorted(file.stem for file in (ROOT / "dags").glob("*.py")) == sorted(JOBS)


@of_every_job
def test_a_dag_is_in_the_file_of_its_name(parser: Parser, job: str) -> None:
    assert Path(parser.first["dags"][job]["file"]) == ROOT / "dags" / f"{job}.py"


def test_parsing_needs_no_database(parser: Parser) -> None:
    assert parser.first["import_errors"] == {}
    assert not parser.asked_for_metadata


def test_parsing_reads_one_variable_per_dag(parser: Parser) -> None:
    assert sorted(parser.first["variables_read"]) == sorted(JOBS)


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


def test_a_dag_file_is_short(dag: dict[str, Any]) -> None:
    assert len(Path(dag["file"]).read_text().splitlines()) < 60


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


def test_a_dag_has_only_the_projects_tag(dag: dict[str, Any]) -> None:
    assert dag["tags"] == ["venue-analytics"]


@of_every_job
def test_the_defaults_of_the_settings_hold_without_a_variable(parser: Parser, job: str) -> None:
    dag, defaults = parser.first["dags"][job], defaults_of(job)
    assert schedule(dag) == (defaults.cron, defaults.timezone)
    for name, task in dag["tasks"].items():
        assert task["execution_timeout_seconds"] == 60 * defaults.timeout_minutes, name
        assert task["pool"] == defaults.pool, name
        # finish is not retried, because its result would be the same
        assert task["retries"] == (0 if name == "finish" else defaults.retries), name
    assert dag["tasks"][mapped_task(dag)]["at_a_time"] == defaults.max_parallel


@of_every_job
def test_every_param_is_typed_titled_and_described(parser: Parser, job: str) -> None:
    params, chosen = parser.first["dags"][job]["params"], JOBS[job]
    known = {chosen.unit.plural, "as_of", "force", *chosen.parameters.model_fields}
    assert set(params) == known | ({"dry_run", "settings"} if chosen.preview else set())
    for name, param in params.items():
        assert param["type"], name
        assert param["title"], name
        assert param["description"], name


def test_the_mapped_task_is_named_by_its_units(dag: dict[str, Any]) -> None:
    mapped = dag["tasks"][mapped_task(dag)]
    assert mapped["map_index_template"] == "{{ task.op_kwargs['batch']['label'] }}"


def test_the_leaves_that_decide_a_runs_state_are_the_mapped_task_and_the_last_one(
    dag: dict[str, Any],
) -> None:
    # whether a teardown fails the run: see ended_well
    assert dag["teardowns"] == {"finish": False, "ended_well": True}
    mapped = mapped_task(dag)
    assert {name: task["upstream"] for name, task in dag["tasks"].items()} == {
        "plan": [],
        mapped: ["plan"],
        "finish": [mapped],
        "ended_well": ["finish"],
    }


@of_every_job
def test_the_variable_sets_schedule_retries_timeout_pool_and_parallelism(
    parser: Parser, job: str
) -> None:
    values = {
        "cron": "15 4 * * *",
        "timezone": "Europe/Berlin",
        "retries": 5,
        "timeout_minutes": 7,
        "pool": "venue_analytics",
        f"max_parallel_{JOBS[job].unit.plural}": 3,
    }
    dag = parser.dag(job, json.dumps(values))
    assert schedule(dag) == ("15 4 * * *", "Europe/Berlin")
    assert dag["tasks"][mapped_task(dag)] == {
        "mapped": True,
        "map_index_template": "{{ task.op_kwargs['batch']['label'] }}",
        "at_a_time": 3,
        "retries": 5,
        "execution_timeout_seconds": 420,
        "pool": "venue_analytics",
        "upstream": ["plan"],
    }


#: Faults in the Variable of any job, by name: the text and the message; `JOB` stands for the job.
WRONG = {
    "malformed JSON": (f"{{{OTHER_CRON}", "Variable JOB is not valid JSON"),
    "no object": ('["7 5 * * *"]', "Variable JOB must be a JSON object"),
    "unknown key": (
        f'{{{OTHER_CRON}, "no such setting": 1}}',
        "Variable JOB: no such setting = 1: is not a setting of this job",
    ),
    "wrong type": (
        f'{{{OTHER_CRON}, "retries": "3"}}',
        "retries = '3': Input should be a valid integer",
    ),
    "bad cron": ('{"cron": "every night"}', "cron = 'every night': must be a cron expression"),
    "bad timezone": (
        f'{{{OTHER_CRON}, "timezone": "Berlin"}}',
        "timezone = 'Berlin': must be an IANA",
    ),
}
OWN_WRONG = [
    pytest.param(job, f"{{{OTHER_CRON}, {json.dumps(values)[1:]}", words, id=f"{job}-{words}")
    for job in JOBS
    for values, words in facts_of(job).wrong_settings
]


@pytest.mark.parametrize(
    ("job", "text", "words"),
    [
        *(
            pytest.param(job, text, words, id=f"{job}-{name}")
            for job in JOBS
            for name, (text, words) in WRONG.items()
        ),
        *OWN_WRONG,
    ],
)
def test_a_bad_variable_keeps_the_dag_on_the_default_schedule_with_the_fault_in_its_docs(
    parser: Parser, job: str, text: str, words: str
) -> None:
    dag = parser.dag(job, text)
    assert schedule(dag) == default_schedule(job)
    assert dag["tags"] == ["settings-fault", "venue-analytics"]
    runbook = parser.first["dags"][job]["doc_md"]
    fault = dag["doc_md"].removesuffix(runbook)
    assert fault != dag["doc_md"]
    assert fault.startswith("### Settings fault")
    assert words.replace("JOB", job) in fault
    assert dag["tasks"]["plan"]["retries"] == defaults_of(job).retries


@of_every_job
def test_a_job_with_its_own_settings_has_examples_of_wrong_ones(job: str) -> None:
    model: type[JobSettings] = JOBS[job].settings
    common = {VenueSettings, TenantSettings}
    own = set(model.model_fields) - {name for one in common for name in one.model_fields}
    assert facts_of(job).wrong_settings or not own


def fault_of(job: str, text: str) -> str | None:
    try:
        read_settings(JOBS[job].settings, text, name=f"Variable {job}")
    except SettingsError as error:
        return str(error)
    return None


@pytest.mark.fault("settings-malformed")
@of_every_job
def test_whatever_the_variable_holds_the_dag_exists_and_is_tagged_if_it_is_wrong(
    parser: Parser, job: str
) -> None:
    texts = texts_of(JOBS[job].settings, facts_of(job).settings)
    tasks = set(parser.first["dags"][job]["tasks"])

    # too_slow: see test_settings. An environment cannot hold NUL or half of a surrogate pair.
    @with_texts
    @given(text=texts.filter(lambda text: not re.search("[\0\ud800-\udfff]", text)))
    @example(text='{"pool": "a\\u0000b"}')
    @example(text='{"```\\n# Everything is fine": 1}')
    def hold(text: str) -> None:
        dag = parser.dag(job, text)
        fault = fault_of(job, text)
        if fault:
            assert dag["tags"] == ["settings-fault", "venue-analytics"]
            if dag["timetable"] == "NullTimetable":
                assert json.loads(text)["enabled"] is False
            else:
                assert schedule(dag) == default_schedule(job)
            assert f"```\n{fault}\n```" in dag["doc_md"]
        else:
            assert dag["tags"] == ["venue-analytics"]
        assert dag["doc_md"].replace("\n", "").isprintable()
        # no database accepts a NUL
        assert "\0" not in dag["tasks"][mapped_task(dag)]["pool"]
        assert set(dag["tasks"]) == tasks
        next_run = dag["next_run"]
        assert next_run is None or datetime.fromisoformat(next_run).tzinfo is not None

    hold()


@of_every_job
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
def test_a_cron_is_refused_or_has_a_next_run(parser: Parser, job: str, cron: str) -> None:
    dag = parser.dag(job, json.dumps({"cron": cron}))
    assert dag["cron"] in (cron, defaults_of(job).cron)
    assert datetime.fromisoformat(dag["next_run"]).tzinfo is not None


@of_every_job
def test_a_cron_of_random_moments_is_refused(parser: Parser, job: str) -> None:
    assert "settings-fault" in parser.dag(job, '{"cron": "R 2 * * *"}')["tags"]


@of_every_job
def test_a_job_that_is_not_enabled_has_no_schedule_and_no_fault(parser: Parser, job: str) -> None:
    dag = parser.dag(job, '{"enabled": false}')
    assert (dag["timetable"], dag["cron"]) == ("NullTimetable", None)
    assert dag["tags"] == ["venue-analytics"]


@of_every_job
@pytest.mark.parametrize("fault", ['"cron": "at night"', '"no_such_setting": 1'])
def test_a_job_that_is_not_enabled_stays_so_when_another_setting_is_wrong(
    parser: Parser, job: str, fault: str
) -> None:
    dag = parser.dag(job, f'{{"enabled": false, {fault}}}')
    assert dag["timetable"] == "NullTimetable"
    assert dag["tags"] == ["settings-fault", "venue-analytics"]


@of_every_job
@pytest.mark.parametrize("text", ['{"enabled": "false"}', '{"enabled": false', "[false]", "0"])
def test_a_text_that_does_not_disable_a_job_keeps_its_schedule(
    parser: Parser, job: str, text: str
) -> None:
    dag = parser.dag(job, text)
    assert dag["timetable"] != "NullTimetable"
    assert schedule(dag) == default_schedule(job)
    assert dag["tags"] == ["settings-fault", "venue-analytics"]


@of_every_job
def test_parsing_again_has_the_same_result(parser: Parser, job: str) -> None:
    assert parser.dag(job, None) == parser.dag(job, None) == parser.first["dags"][job]
