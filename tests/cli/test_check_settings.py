"""`check-settings`: what it reports about the current settings, or about those in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import StringIO
from itertools import takewhile
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from venue_analytics.check_settings import check_settings_command, next_runs
from venue_analytics.demo.profile import ROOT
from venue_analytics.jobs import JOBS
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

JOB = "rfm_scoring"
VARIABLE = "AIRFLOW_VAR_RFM_SCORING"
METADATA = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
NO_POOL = (
    "  fault: Variable rfm_scoring: pool = 'x': Airflow has no such pool; its tasks would wait for "
    "ever; there are: default_pool"
)
#: The names of the JSON files with one job's settings.
FILES = ", ".join(f"{job}.json" for job in JOBS)
Check = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Check:
    """Return a check without an Airflow set up; it returns the exit code and the lines."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv(METADATA, raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "nowhere"))

    def run(job: str | None = None, file: Path | None = None) -> tuple[int, list[str]]:
        out = StringIO()
        code = check_settings_command(Console(file=out, width=80), job, file)
        return code, out.getvalue().splitlines()

    return run


@pytest.fixture
def in_file(check: Check, tmp_path: Path) -> Check:
    """Return a check of a file with a given name and text."""

    def run(name: str, text: str, job: str | None = None) -> tuple[int, list[str]]:
        file = tmp_path / name
        file.write_text(text)
        return check(job, file)

    return run


@pytest.fixture
def airflow(
    check: Check, monkeypatch: pytest.MonkeyPatch, airflow_environment: dict[str, str]
) -> Iterator[psycopg.Connection]:
    """Yield the metadata of an Airflow that is set up here; remove what a test adds."""
    for name in ("AIRFLOW_HOME", METADATA):
        monkeypatch.setenv(name, airflow_environment[name])
    address = airflow_environment[METADATA].replace("+psycopg2", "")
    with psycopg.connect(address, autocommit=True) as connection:
        yield connection
        connection.execute("DELETE FROM variable; DELETE FROM slot_pool WHERE pool = 'y'")


def of_job(lines: list[str]) -> list[str]:
    """Return the lines about the job, among those about all jobs."""
    begin = next(at for at, line in enumerate(lines) if line.startswith(f"{JOB}: "))
    return [lines[begin], *takewhile(lambda line: line.startswith(" "), lines[begin + 1 :])]


def settings_file(value: object, *pools: str) -> str:
    entry = json.dumps({"variable_name": JOB, "variable_value": value})
    listed = json.dumps([{"pool_name": pool, "pool_slot": 1} for pool in pools])
    return f"airflow:\n  pools: {listed}\n  variables:\n    - {entry}\n"


def test_the_repositorys_own_settings_file_is_right(check: Check) -> None:
    code, lines = check(file=ROOT / "airflow_settings.yaml")
    assert code == 0
    assert [line.partition(": ")[0] for line in lines if not line.startswith(" ")] == list(JOBS)
    assert of_job(lines)[:2] == [
        "rfm_scoring: ok (from airflow_settings.yaml)",
        "  pool = 'venue_analytics' (default 'default_pool')",
    ]


def test_changed_settings_are_shown_beside_their_defaults_and_overrides_are_counted(
    in_file: Check,
) -> None:
    venues = {f"10000000-0000-4000-8000-00000000000{n}": {"vip_min_total": 13} for n in (1, 2)}
    venues["10000000-0000-4000-8000-000000000001"]["lookback_days"] = 365
    text = json.dumps({"retries": 5, "timezone": "Europe/Berlin", "venues": venues})
    code, lines = in_file("rfm_scoring.json", text)
    assert code == 0
    assert lines[:4] == [
        "rfm_scoring: ok (from rfm_scoring.json)",
        "  timezone = 'Europe/Berlin' (default 'UTC')",
        "  retries = 5 (default 3)",
        "  overrides: 2 venues: lookback_days (1), vip_min_total (2)",
    ]
    assert [line.split()[:2] for line in lines[4:]] == [["next", "run"]] * 3


def test_each_fault_is_one_line_however_narrow_the_terminal(in_file: Check) -> None:
    code, lines = in_file("rfm_scoring.json", '{"retries": "3", "colour": 1}')
    assert code == 1
    verdict, retries, colour = lines
    assert verdict == "rfm_scoring: 2 faults (from rfm_scoring.json)"
    assert retries == (
        "  fault: Variable rfm_scoring: retries = '3': Input should be a valid integer"
    )
    assert colour.startswith("  fault: Variable rfm_scoring: colour = 1: is not a setting of this")


@pytest.mark.parametrize("pools", [(), ("y",)])
def test_a_pool_that_the_file_does_not_define_is_a_fault(
    in_file: Check, pools: tuple[str, ...]
) -> None:
    code, lines = in_file("a.yaml", settings_file('{"pool": "x"}', *pools))
    assert (code, of_job(lines)[1]) == (1, ", ".join((NO_POOL, *pools)))


def test_a_pool_that_the_file_defines_is_accepted(in_file: Check) -> None:
    assert in_file("a.yaml", settings_file('{"pool": "x"}', "x"))[0] == 0


def test_a_pool_is_not_checked_if_the_pools_are_unknown(in_file: Check) -> None:
    code, lines = in_file("rfm_scoring.json", '{"pool": "x"}')
    assert (code, lines[1]) == (0, "  pool 'x' is not checked: no Airflow is set up here")


@pytest.mark.parametrize("value", [None, ""])
def test_a_file_without_the_jobs_variable_leaves_the_defaults(
    in_file: Check, value: str | None
) -> None:
    code, lines = in_file("a.yaml", settings_file(value))
    line = "rfm_scoring: ok (defaults: a.yaml has no such Variable)"
    assert (code, of_job(lines)[0]) == (0, line)


def test_a_json_file_of_another_name_needs_the_job_as_an_argument(in_file: Check) -> None:
    code, lines = in_file("new.json", '{"retries": 5}', job=JOB)
    assert (code, lines[0]) == (0, "rfm_scoring: ok (from new.json)")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "new.json",
            "{}",
            f"file 'new.json': must be {FILES}, unless a job is named",
        ),
        ("new.toml", "", "file 'new.toml': must be .yaml, .yml or .json"),
        ("a.yaml", "{a: [", "a.yaml is not valid YAML: while parsing a flow node"),
        ("a.yaml", "a: 2026-99-99", "a.yaml is not valid YAML: month must be in 1..12"),
        ("a.yaml", "", "a.yaml: must contain `airflow:` with `variables:` and `pools:`"),
        ("a.yaml", "airflow: {variables: x}", "a.yaml: airflow.variables must be a list"),
        (
            "a.yaml",
            "airflow: {pools: [x]}",
            "a.yaml: airflow.pools, entry 1: must have a pool_name",
        ),
        (
            "a.yaml",
            settings_file({}),
            "a.yaml: variable_value of rfm_scoring must be JSON in quotes",
        ),
        ("a.yaml", settings_file("{}", "x", "x"), "a.yaml: airflow.pools has 'x' twice"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_fault(
    in_file: Check, name: str, text: str, words: str
) -> None:
    code, (line,) = in_file(name, text)
    assert code == 1
    assert line.startswith(f"fault: {words}")


def test_the_error_of_a_yaml_file_without_pyyaml_shows_what_to_install(
    in_file: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    code, (line,) = in_file("a.yaml", settings_file("{}"))
    assert (code, line) == (1, "fault: a.yaml: reading YAML needs PyYAML: pip install pyyaml")


def test_a_file_that_is_missing_or_not_text_is_one_fault(check: Check, tmp_path: Path) -> None:
    code, (line,) = check(file=tmp_path / "rfm_scoring.json")
    assert code == 1
    assert line.startswith("fault: file ")
    assert line.endswith(": No such file or directory")
    (tmp_path / "rfm_scoring.json").write_bytes(b"\xff")
    assert check(file=tmp_path / "rfm_scoring.json")[1][0].endswith(": is not text in UTF-8")


def test_the_error_of_an_unknown_job_lists_the_known_ones(check: Check) -> None:
    assert check("rfm") == (1, [f"fault: job 'rfm': must be {', '.join(JOBS)}"])


def test_the_environment_takes_precedence(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '{"retries": 5}')
    code, lines = check(JOB)
    assert (code, lines[:2]) == (
        0,
        [
            "rfm_scoring: ok (from AIRFLOW_VAR_RFM_SCORING in the environment)",
            "  retries = 5 (default 3)",
        ],
    )


def test_without_airflow_the_defaults_apply_and_no_airflow_is_created(
    check: Check, tmp_path: Path
) -> None:
    code, lines = check()
    assert code == 0
    assert of_job(lines)[0] == (
        "rfm_scoring: ok (defaults: no AIRFLOW_VAR_RFM_SCORING, no Airflow set up here)"
    )
    assert not (tmp_path / "nowhere").exists()


def test_airflows_variable_and_pools_are_read(check: Check, airflow: psycopg.Connection) -> None:
    airflow.execute(
        "INSERT INTO variable (key, val, is_encrypted) VALUES (%s, %s, FALSE)",
        [JOB, '{"pool": "x"}'],
    )
    airflow.execute("INSERT INTO slot_pool (pool, slots, include_deferred) VALUES ('y', 1, FALSE)")
    code, lines = check()
    expected = ["rfm_scoring: 1 fault (from Airflow)", f"{NO_POOL}, y"]
    assert (code, of_job(lines)[:2]) == (1, expected)


@pytest.mark.deep
def test_an_airflow_without_the_variable_has_the_defaults(
    check: Check, airflow: psycopg.Connection
) -> None:
    code, lines = check()
    line = "rfm_scoring: ok (defaults: Airflow has no such Variable)"
    assert (code, of_job(lines)[0]) == (0, line)


@pytest.mark.deep
def test_an_airflow_that_does_not_answer_is_one_fault(
    check: Check, airflow: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(METADATA, "postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
    code, (line,) = check()
    assert code == 1
    assert line.startswith("fault: Airflow cannot list its pools: sqlalchemy.exc.Operational")


def test_the_next_runs_follow_the_schedules_time_zone() -> None:
    settings = RfmScoringSettings(cron="30 2 * * 1-5", timezone="Europe/Berlin")
    # a Friday in summer time; the clocks go back on Sunday
    runs = next_runs(settings, datetime(2026, 10, 23, 0, 0, tzinfo=UTC))
    assert [f"{run:%a %Y-%m-%d %H:%M %Z}" for run in runs] == [
        "Fri 2026-10-23 02:30 CEST",
        "Mon 2026-10-26 02:30 CET",
        "Tue 2026-10-27 02:30 CET",
    ]


def test_a_schedule_that_is_off_has_no_next_run(in_file: Check) -> None:
    code, lines = in_file("rfm_scoring.json", '{"enabled": false}')
    assert (code, lines[-1]) == (0, "  no next run: the schedule is off")
