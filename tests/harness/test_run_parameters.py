"""A job's own run parameters: shown, validated, stored, passed on, and part of the rules hash."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Any

import pytest
from pydantic import Field, create_model
from tests.harness.runner import Runner
from tests.harness.simple_venues import ARENA

from venue_analytics.harness import (
    SHAPES_RESULTS,
    Grouped,
    GroupRun,
    Job,
    PermanentError,
    RunParameters,
    UnitResult,
    UnitRun,
    VenueSettings,
)
from venue_analytics.harness.request import RunRequest, parameter_schemas


class ExportParameters(RunParameters):
    """One parameter that shapes results, and one that does not."""

    since: date | None = Field(
        None, description="Only orders from this day on.", json_schema_extra=SHAPES_RESULTS
    )
    sheets: int = Field(1, ge=1, le=9, description="How many sheets to print at a time.")


class Export:
    """A job that records the parameters that its steps receive."""

    def __init__(self) -> None:
        self.passed: list[Any] = []
        self.job = Job(
            "export",
            VenueSettings,
            {"collect": Grouped(self._collect), "print": self._print},
            lambda *_: 0,
            lambda *_: [],
            parameters=ExportParameters,
        )

    def _collect(self, run: GroupRun[VenueSettings]) -> None:
        self.passed.append(run.parameters)

    def _print(self, run: UnitRun[VenueSettings]) -> UnitResult:
        self.passed.append(run.parameters)
        return UnitResult()


@pytest.fixture
def export() -> Export:
    return Export()


def test_parameters_are_shown_beside_those_of_every_job(export: Export) -> None:
    shown = parameter_schemas(export.job)
    assert list(shown) == ["venues", "as_of", "force", "since", "sheets"]
    assert shown["since"]["description"] == "Only orders from this day on."
    assert (shown["sheets"]["default"], shown["sheets"]["maximum"]) == (1, 9)


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"sheets": 10}, "sheets = '10': Input should be less than or equal to 9"),
        ({"since": "soon"}, "since = 'soon': Input should be a valid date"),
        (
            {"sheet": 2},
            "sheet = '2': is not a parameter of this run; allowed: venues, as_of, force, since",
        ),
        # only a job with a preview takes these
        ({"dry_run": True}, "dry_run = 'True': is not a parameter of this run; allowed: venues"),
        # the names of the model's own fields are not parameters
        ({"units": []}, "units = '[]': is not a parameter of this run"),
        ({"parameters": {}}, "parameters = '{}': is not a parameter of this run"),
    ],
)
def test_the_error_of_a_refused_parameter_has_its_name_and_value(
    export: Export, conf: dict[str, Any], words: str
) -> None:
    with pytest.raises(PermanentError) as raised:
        RunRequest.read(conf, export.job)
    assert str(raised.value).startswith(f"run parameters: {words}")


def test_parameters_are_stored_with_the_run_and_passed_to_every_step(
    runner: Runner, export: Export
) -> None:
    asked = {"venues": [str(ARENA.id)], "since": "2026-01-01", "sheets": 3}
    run = runner.run(export.job, conf=asked)
    assert run.parameters == {"since": "2026-01-01", "sheets": 3}
    assert export.passed == [ExportParameters(since=date(2026, 1, 1), sheets=3)] * 2


def test_only_requested_parameters_that_shape_results_change_the_rules_hash(
    runner: Runner, export: Export
) -> None:
    def outcome(run_id: str, **asked: Any) -> str:
        run = runner.run(export.job, run_id, conf={"venues": [str(ARENA.id)], **asked})
        return runner.outcomes(export.job, run)["Arena"]

    assert outcome("first") == "succeeded"
    assert outcome("the default, written out", since=None) == "skipped: already done"
    assert outcome("how it is printed", sheets=3) == "skipped: already done"
    assert outcome("since", since="2026-01-01") == "succeeded"
    assert outcome("the same, printed otherwise", since="2026-01-01", sheets=2) == (
        "skipped: already done"
    )
    assert outcome("since another day", since="2026-01-02") == "succeeded"
    assert outcome("all again") == "succeeded"
    hashes = {row.rules_hash for row in runner.attempts(export.job)}
    assert len(hashes) == 3


class Season(StrEnum):
    """An enum, which a JSON schema refers to by its name."""

    SPRING = "spring"
    AUTUMN = "autumn"


def job_with(**fields: Any) -> Job[VenueSettings]:
    """Return a job that has these parameters of its own."""
    parameters = create_model("Own", __base__=RunParameters, **fields)
    steps = {"end": lambda _: UnitResult()}
    return Job("own", VenueSettings, steps, lambda *_: 0, lambda *_: [], parameters=parameters)


def test_the_form_is_given_the_values_of_an_enum_and_null() -> None:
    schemas = parameter_schemas(job_with(season=(Season | None, None), day=(Season, "spring")))
    assert (schemas["season"]["type"], schemas["season"]["enum"]) == (
        ["null", "string"],
        ["spring", "autumn", None],
    )
    assert (schemas["day"]["type"], schemas["day"]["enum"]) == ("string", ["spring", "autumn"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"force": (str, "no")}, "parameter force of own: every run has one of that name"),
        ({"when": (int | str, 1)}, "parameter when: must be of one type"),
    ],
)
def test_a_parameter_that_no_form_can_show_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        parameter_schemas(job_with(**fields))


def test_another_default_of_a_parameter_is_other_work(runner: Runner) -> None:
    def outcome(run_id: str, default: str) -> str:
        job = job_with(season=(str, Field(default, json_schema_extra=SHAPES_RESULTS)))
        return runner.outcomes(job, runner.run(job, run_id))["Arena"]

    assert outcome("one", "spring") == "succeeded"
    assert outcome("two", "spring") == "skipped: already done"
    assert outcome("three", "autumn") == "succeeded"
