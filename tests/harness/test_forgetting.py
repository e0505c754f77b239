"""A job that runs every few minutes: history forgets successes, yet keeps the proof it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import Field
from tests.harness.nights import AS_OF
from tests.harness.runner import Runner
from tests.harness.simple_venues import ARENA, BALLROOM, VENUES

from venue_analytics.harness import (
    SHAPES_RESULTS,
    Job,
    PermanentError,
    Preview,
    Report,
    TransientError,
    UnitResult,
    UnitRun,
    VenueSettings,
    dead_letters,
    history,
)
from venue_analytics.harness.history import PlannedRun

MINUTE = timedelta(minutes=1)
ALL = {venue.name for venue in VENUES}
ONLY_ARENA = {"venues": [str(ARENA.id)]}


class PulseSettings(VenueSettings):
    """Settings with a rule that shapes results."""

    beats: int = Field(
        60, description="Beats a minute.", json_schema_extra={**SHAPES_RESULTS, "unit": "beats"}
    )


class Pulse:
    """A job whose venues fail on demand."""

    def __init__(self) -> None:
        self.faults: dict[str, Exception] = {}
        self.job = Job(
            "pulse",
            PulseSettings,
            {"feel": self._feel},
            lambda *_: 0,
            lambda *_: [],
            keeps_every_success=False,
        )

    def _feel(self, run: UnitRun[PulseSettings]) -> UnitResult:
        if error := self.faults.get(run.unit.name):
            raise error
        return UnitResult(rows_written=1)


@pytest.fixture
def pulse() -> Pulse:
    return Pulse()


def run(runner: Runner, pulse: Pulse, minute: int, **options: Any) -> PlannedRun:
    """Run the job as of a minute of the night."""
    return runner.run(pulse.job, f"minute {minute}", as_of=AS_OF + minute * MINUTE, **options)


def run_with_a_fault(
    runner: Runner, pulse: Pulse, minute: int, error: Exception, *, mended: bool
) -> PlannedRun:
    """Try the job twice; Arena fails the first time, and the second time too unless mended."""
    planned = runner.plan(pulse.job, f"minute {minute}", as_of=AS_OF + minute * MINUTE)
    pulse.faults["Arena"] = error
    assert len(runner.process(pulse.job, planned)) == 1
    if mended:
        pulse.faults.clear()
    failures = runner.process(pulse.job, planned, try_number=2)
    assert runner.finish(pulse.job, planned) == failures
    pulse.faults.clear()
    return planned


def kept(runner: Runner, pulse: Pulse, planned: PlannedRun) -> list[tuple[str, str]]:
    """Return what history keeps of a run: units and outcomes."""
    return sorted((row.unit_name, row.outcome) for row in runner.attempts(pulse.job, planned))


def counts(runner: Runner) -> dict[str, tuple[int, int, int, int]]:
    """Return how many units of each run were planned, succeeded, skipped, failed."""
    return {
        one.run_id: (one.planned, one.succeeded, one.skipped, one.failed)
        for one in history.list_runs(runner.connection, "pulse", 99)
    }


def test_history_keeps_each_units_latest_success_every_failure_and_the_runs_counts(
    runner: Runner, pulse: Pulse
) -> None:
    first = run(runner, pulse, 1)
    mended = run_with_a_fault(runner, pulse, 2, TransientError("not yet"), mended=True)
    red = run_with_a_fault(runner, pulse, 3, PermanentError("no such seat"), mended=False)
    without = run(runner, pulse, 4, exclude_venues=[BALLROOM.id])
    last = run(runner, pulse, 5, exclude_venues=[BALLROOM.id])

    assert kept(runner, pulse, first) == []
    # a failure, and the success that shows that it was mended
    assert kept(runner, pulse, mended) == [("Arena", "failed"), ("Arena", "succeeded")]
    assert kept(runner, pulse, red) == [("Arena", "failed"), ("Ballroom", "succeeded")]
    assert kept(runner, pulse, without) == []
    assert kept(runner, pulse, last) == [
        ("Arena", "succeeded"),
        ("Cellar", "succeeded"),
        ("Dome", "succeeded"),
    ]
    assert counts(runner) == {
        "minute 1": (4, 4, 0, 0),
        "minute 2": (4, 4, 0, 0),
        "minute 3": (4, 3, 0, 1),
        "minute 4": (3, 3, 0, 0),
        "minute 5": (3, 3, 0, 0),
    }
    # the duration of each unit is still known
    seconds = history.last_durations(runner.connection, "pulse", [venue.id for venue in VENUES])
    assert len(seconds) == 4


def test_the_finish_of_an_old_run_stays_green_when_it_is_cleared(
    runner: Runner, pulse: Pulse
) -> None:
    first = run(runner, pulse, 1)
    mended = run_with_a_fault(runner, pulse, 2, TransientError("not yet"), mended=True)
    run(runner, pulse, 3)
    assert runner.finish(pulse.job, first) == []
    assert runner.finish(pulse.job, mended) == []
    assert dead_letters.find(runner.connection, ended=True) == []
    # a batch that never began still differs from one whose successes were forgotten
    assert len(runner.finish(pulse.job, runner.plan(pulse.job, "never begun"))) == 4


def test_an_old_run_that_is_cleared_finds_newer_results_and_counts_no_unit_twice(
    runner: Runner, pulse: Pulse
) -> None:
    first = run(runner, pulse, 1)
    run(runner, pulse, 2)
    assert runner.process(pulse.job, first, try_number=2, clear_number=1) == []
    assert runner.finish(pulse.job, first) == []
    for reason in runner.outcomes(pulse.job, first).values():
        assert reason.startswith("skipped: newer results stand, as of 2026-03-01 02:02:00 UTC")
    assert counts(runner)["minute 1"] == (4, 0, 4, 0)
    run(runner, pulse, 3)
    assert sum(counts(runner)["minute 1"][1:]) == 4


def test_the_latest_success_proves_that_its_work_is_done(runner: Runner, pulse: Pulse) -> None:
    run(runner, pulse, 1)
    run(runner, pulse, 2)
    again = runner.run(pulse.job, "again", as_of=AS_OF + 2 * MINUTE)
    assert runner.outcomes(pulse.job, again) == dict.fromkeys(ALL, "skipped: already done")
    older = runner.run(pulse.job, "older", as_of=AS_OF + MINUTE)
    assert {reason.split(",")[0] for reason in runner.outcomes(pulse.job, older).values()} == {
        "skipped: newer results stand"
    }
    # what was skipped stays, though a later success has replaced it
    later = AS_OF + 3 * MINUTE
    runner.run(pulse.job, "later", conf={"venues": [str(BALLROOM.id)]}, as_of=later)
    kept_units = {unit for unit, _ in kept(runner, pulse, older)}
    assert kept_units == ALL


def test_the_attempt_that_vouches_for_the_latest_result_is_kept(
    runner: Runner, pulse: Pulse
) -> None:
    def plan(run_id: str, **options: Any) -> PlannedRun:
        return runner.plan(
            pulse.job, run_id, conf={**ONLY_ARENA, **options.pop("conf", {})}, **options
        )

    runner.run(pulse.job, "first", conf=ONLY_ARENA, beats=90)
    repeated = plan("repeated", conf={"force": True}, beats=90)
    other_rules = plan("other rules", beats=60)
    # a later plan finds the result done, which vouches for it against the other rules
    found_done = runner.run(pulse.job, "found done", conf=ONLY_ARENA, beats=90)
    assert runner.outcomes(pulse.job, found_done) == {"Arena": "skipped: already done"}
    assert runner.process(pulse.job, repeated) == []
    assert runner.outcomes(pulse.job, repeated) == {"Arena": "succeeded"}
    runner.run(pulse.job, "another venue", conf={"venues": [str(BALLROOM.id)]}, beats=90)
    assert runner.process(pulse.job, other_rules) == []
    assert "by the settings of a later plan" in runner.outcomes(pulse.job, other_rules)["Arena"]


def test_a_job_that_keeps_every_success_forgets_none(runner: Runner) -> None:
    job = Job("diary", VenueSettings, {"do": lambda _: UnitResult()}, lambda *_: 0, lambda *_: [])
    for minute in range(3):
        runner.run(job, f"minute {minute}", as_of=AS_OF + minute * MINUTE)
    assert len(runner.attempts(job)) == 12


def test_a_job_that_keeps_every_date_must_keep_every_success() -> None:
    with pytest.raises(TypeError, match="pulse keeps a result for each as_of"):
        Job(
            "pulse",
            VenueSettings,
            {"do": lambda _: UnitResult()},
            lambda *_: 0,
            lambda *_: [],
            keeps_every_date=True,
            keeps_every_success=False,
        )


def test_a_run_that_goes_on_keeps_its_proofs(runner: Runner, pulse: Pulse) -> None:
    slow = runner.plan(pulse.job, "slow", as_of=AS_OF)
    pulse.faults["Arena"] = TransientError("not yet")
    runner.process(pulse.job, slow)
    pulse.faults.clear()
    run(runner, pulse, 5)
    assert kept(runner, pulse, slow) == [
        ("Arena", "failed"),
        *((name, "succeeded") for name in ("Ballroom", "Cellar", "Dome")),
    ]
    assert runner.finish(pulse.job, slow) == ["Arena: not yet"]


def test_other_jobs_and_successes_with_a_reason_are_kept(runner: Runner, pulse: Pulse) -> None:
    other = replace(pulse.job, name="other")
    first = [runner.run(other, "first", as_of=AS_OF)]
    with_reason = replace(
        pulse.job, steps={"feel": lambda _: UnitResult(reason="no sales on a usual day")}
    )
    first.append(runner.run(with_reason, "first", as_of=AS_OF))
    other_again = runner.plan(other, "second", as_of=AS_OF + MINUTE)
    runner.process(other, other_again)  # its own finish is still to come
    run(runner, pulse, 2)
    assert [len(kept(runner, pulse, one)) for one in first] == [0, 4]
    assert len(runner.attempts(other)) == 8


def test_a_dry_run_forgets_nothing(runner: Runner, pulse: Pulse) -> None:
    first = run(runner, pulse, 1)
    second = runner.plan(pulse.job, "second", as_of=AS_OF + 2 * MINUTE)
    runner.process(pulse.job, second)
    dry = replace(pulse.job, preview=Preview(lambda _: UnitResult(), lambda _: Report()))
    runner.run(dry, "dry", conf={"dry_run": True})
    assert len(kept(runner, pulse, first)) == 4


def test_the_report_of_a_forgotten_run_says_so(runner: Runner, pulse: Pulse) -> None:
    job = replace(pulse.job, report=lambda results: Report(lines=(f"{len(results)} felt",)))

    def report_lines(run_id: str) -> Sequence[str]:
        found = history.load_latest_run(runner.connection, job.name, run_id)
        assert found is not None
        attempts = history.last_attempts(runner.connection, found)
        return history.report_of(job, found, attempts).lines

    run(runner, pulse, 1)
    assert report_lines("minute 1") == ("4 felt",)
    run(runner, pulse, 2)
    assert report_lines("minute 1") == (
        "history keeps no figures of 4 venues of this run any more",
    )


def test_the_functions_that_run_as_their_owner_are_the_jobs_alone_and_look_nowhere_else(
    runner: Runner,
) -> None:
    rows = runner.connection.execute(
        "SELECT p.proname, p.proconfig, "
        "has_function_privilege('analytics_reader', p.oid, 'EXECUTE') "
        "FROM pg_proc AS p WHERE p.prosecdef AND p.pronamespace = 'jobs'::regnamespace"
    ).fetchall()
    assert {name for name, _, _ in rows} >= {"forget_successes", "list_venues"}
    assert {tuple(config or ()) for _, config, _ in rows} == {("search_path=pg_catalog, pg_temp",)}
    assert not any(may_anybody for _, _, may_anybody in rows)
