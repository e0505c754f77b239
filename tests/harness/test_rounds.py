"""Rounds: which venues a try of a batch does again, and which it finds done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.harness.nights import OURS, THEIRS, TONIGHT, Night
from tests.harness.simple_venues import ARENA, BALLROOM, CELLAR, SOUTH

from venue_analytics.harness import TransientError, Unit, UnitResult, attempts, history
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey

LATER = replace(TONIGHT, run_id="a later night")


def begin(night: Night, run: PlannedRun, clear_number: int = 0, batch: int = 0) -> int:
    return history.open_round(night.connection, run, batch, clear_number)


def end_well(
    night: Night, run: PlannedRun, round_: int, clear_number: int = 0, batch: int = 0
) -> None:
    history.end_round_well(night.connection, run, batch, round_, clear_number)


def test_the_first_try_after_a_plan_opens_the_first_round(night: Night) -> None:
    assert begin(night, night.plan(ARENA)) == 1


def test_a_retry_joins_the_round_that_did_not_end_well(night: Night) -> None:
    run = night.plan(ARENA)
    assert [begin(night, run) for _ in range(3)] == [1, 1, 1]


def test_a_clear_of_a_batch_that_did_not_end_well_joins_its_round(night: Night) -> None:
    run = night.plan(ARENA)
    begin(night, run)
    assert begin(night, run, clear_number=1) == 1


def test_a_clear_of_a_batch_that_ended_well_opens_one_more_round(night: Night) -> None:
    run = night.plan(ARENA)
    end_well(night, run, begin(night, run))
    assert begin(night, run, clear_number=1) == 2
    # its retries join it, and so does a clear while it has not ended well
    assert begin(night, run, clear_number=1) == 2
    assert begin(night, run, clear_number=2) == 2
    end_well(night, run, 2, clear_number=2)
    assert begin(night, run, clear_number=2) == 2
    assert begin(night, run, clear_number=3) == 3


def test_a_retry_after_the_good_end_was_noted_opens_no_round(night: Night) -> None:
    run = night.plan(ARENA)
    end_well(night, run, begin(night, run))
    assert begin(night, run) == 1
    # the noted end still counts for the next clear
    assert begin(night, run, clear_number=1) == 2


def test_a_try_from_before_the_clear_that_counted_opens_no_round(night: Night) -> None:
    run = night.plan(ARENA)
    end_well(night, run, begin(night, run, clear_number=4), clear_number=4)
    assert begin(night, run, clear_number=3) == 1
    assert begin(night, run, clear_number=4) == 1
    assert begin(night, run, clear_number=5) == 2


def test_a_try_of_an_earlier_round_cannot_end_the_current_one(night: Night) -> None:
    run = night.plan(ARENA)
    end_well(night, run, begin(night, run))
    assert begin(night, run, clear_number=1) == 2
    end_well(night, run, 1, clear_number=1)
    # had it counted, this clear would open a third round over an unfinished second
    assert begin(night, run, clear_number=2) == 2


def test_each_batch_has_its_own_rounds(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    end_well(night, run, begin(night, run))
    assert begin(night, run, clear_number=1, batch=0) == 2
    assert begin(night, run, clear_number=1, batch=1) == 1


def test_the_results_of_a_round_count_until_the_next_is_opened(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM, max_tasks=1)
    night.succeed(run, ARENA)
    night.fail(run, BALLROOM, TransientError("not yet"))
    assert {a.unit_name: a.ended_well for a in night.attempts(run).values()} == {
        "Arena": True,
        "Ballroom": False,
    }
    night.succeed(run, BALLROOM)
    end_well(night, run, 1)
    begin(night, run, clear_number=1)
    assert night.attempts(run) == {}


# plans -------------------------------------------------------------------------------------


def test_a_plan_opens_no_round_and_the_first_try_after_it_does(night: Night) -> None:
    run = night.plan(ARENA)
    end_well(night, run, begin(night, run))
    # plan may die and be retried any number of times
    night.plan(ARENA, plan_try=2)
    again = night.plan(ARENA, plan_try=3)
    assert [begin(night, again) for _ in range(2)] == [2, 2]


def test_a_later_plan_continues_from_the_highest_round_of_the_earlier_ones(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    for clear_number in range(3):
        end_well(night, run, begin(night, run, clear_number), clear_number)
    begin(night, run, batch=1)
    second = night.plan(BALLROOM, CELLAR, ARENA, plan_try=2)
    # batches are numbered again: none of them may reuse an earlier round
    assert [begin(night, second, clear_number=3, batch=batch) for batch in range(3)] == [4, 4, 4]


def test_a_success_under_an_earlier_plan_does_not_count_for_a_later_one(night: Night) -> None:
    first = night.plan(ARENA)
    night.succeed(first, ARENA)
    second = night.plan(ARENA, plan_try=2)
    assert night.attempts(second) == {}
    assert night.begin(second, ARENA).batch_try.round == 2


def test_a_good_end_under_an_earlier_plan_does_not_end_the_later_ones_batch(night: Night) -> None:
    first = night.plan(ARENA)
    round_ = begin(night, first)
    second = night.plan(ARENA, plan_try=2)
    begin(night, second)
    end_well(night, first, round_)
    assert begin(night, second, clear_number=1) == 2


def test_an_earlier_try_of_plan_that_is_stored_late_opens_no_round(night: Night) -> None:
    second = night.plan(ARENA, plan_try=2)
    end_well(night, second, begin(night, second))
    late = night.plan(ARENA, plan_try=1)
    assert late == second
    assert begin(night, late) == 1


def test_two_deployments_and_two_runs_have_separate_rounds(night: Night) -> None:
    run = night.plan(ARENA)
    end_well(night, run, begin(night, run))
    assert begin(night, run, clear_number=1) == 2
    for key in (
        RunKey(THEIRS, TONIGHT.job, TONIGHT.run_id),
        RunKey(OURS, TONIGHT.job, "another night"),
    ):
        assert begin(night, night.plan(ARENA, key=key)) == 1


def test_a_batch_that_was_not_planned_is_named(night: Night) -> None:
    with pytest.raises(LookupError, match="run tonight of diary has no batch 5"):
        begin(night, night.plan(ARENA), batch=5)


def test_a_run_that_ended_is_unfinished_again_when_a_try_of_it_begins(night: Night) -> None:
    run = night.plan(ARENA)
    night.succeed(run, ARENA)
    end_well(night, run, 1)
    assert finish_run(night.connection, night.leases, night.job, run) == []
    assert history.unfinished_runs(night.connection, LATER) == []
    assert begin(night, run, clear_number=1) == 2
    (left,) = history.unfinished_runs(night.connection, LATER)
    assert left.run_id == run.run_id


def test_a_plan_that_a_later_one_has_replaced_is_no_unfinished_run(night: Night) -> None:
    night.plan(ARENA)
    latest = night.plan(ARENA, plan_try=2)
    (left,) = history.unfinished_runs(night.connection, LATER)
    assert left.id == latest.id


def test_a_venue_that_came_back_or_changed_hands_is_not_already_done(night: Night) -> None:
    def reason_to_skip(venue: Unit, number: int) -> str | None:
        run = night.plan(venue, key=replace(TONIGHT, run_id=f"run {number}"))
        attempt = night.begin(run, venue)
        with night.connection.transaction():
            night.enter(attempt)
            (decision,) = attempts.begin(night.connection, night.job, [attempt])
            if decision.reason_to_skip is None:
                attempts.close(night.connection, night.job, [attempt], [UnitResult()])
        return decision.reason_to_skip

    gone, sold = replace(ARENA, gone=True), replace(ARENA, tenant_id=SOUTH)
    assert reason_to_skip(gone, 1) is None
    assert reason_to_skip(gone, 2) == "already done"
    assert reason_to_skip(ARENA, 3) is None
    assert reason_to_skip(ARENA, 4) == "already done"
    assert reason_to_skip(sold, 5) is None
