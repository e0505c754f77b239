"""What a job's report is given, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from tests.harness.nights import AS_OF, DAY
from tests.harness.runner import Runner
from tests.harness.simple_venues import ARENA, VENUES

from venue_analytics.harness import Job, Report, UnitResult, VenueSettings, history

GONE = UUID(int=7)


def job_with(
    report: Callable[[Mapping[UUID, UnitResult]], Report], held: Sequence[UUID] = ()
) -> Job[VenueSettings]:
    """Return a job with this report, which keeps rows of these venues of the first tenant."""
    return Job(
        "reported",
        VenueSettings,
        {"count": lambda _: UnitResult(summary={"sales": 3})},
        lambda *_: 1,
        lambda _, tenant_id: list(held) if tenant_id == ARENA.tenant_id else [],
        report=report,
    )


def lines_of(runner: Runner, job: Job[VenueSettings], run_id: str = "tonight") -> Sequence[str]:
    """Run a job, and return the lines of its report."""
    run = runner.run(job, run_id, as_of=AS_OF + DAY)
    attempts = history.last_attempts(runner.connection, run)
    return history.report_of(job, run, attempts).lines


def test_a_report_is_given_the_results_of_units_that_are_there(runner: Runner) -> None:
    def sum_up(results: Mapping[UUID, UnitResult]) -> Report:
        assert set(results) == {venue.id for venue in VENUES}
        return Report(lines=(f"{sum(one.summary['sales'] for one in results.values())} sales",))

    assert lines_of(runner, job_with(sum_up, held=[GONE])) == ("12 sales",)


def test_a_report_is_given_nothing_of_units_that_were_skipped(runner: Runner) -> None:
    job = job_with(lambda results: Report(lines=(f"{len(results)} units",)))
    assert lines_of(runner, job) == ("4 units",)
    assert lines_of(runner, job, "again") == ("0 units",)


def test_a_report_that_fails_says_so_and_nothing_else_is_lost(runner: Runner) -> None:
    job = job_with(lambda results: Report(lines=(str(results["no such key"]),)))
    assert lines_of(runner, job) == ("the report of reported failed: KeyError: 'no such key'",)
