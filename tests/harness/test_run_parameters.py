"""A job's own run parameters: shown, validated, stored, passed on, and part of the rules hash."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import Field
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
