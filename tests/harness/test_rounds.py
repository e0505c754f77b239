"""Rounds: what a try of a batch has to do again, and what it finds done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.harness.nights import OURS, THEIRS, TONIGHT, Night
from tests.harness.simple_venues import ARENA, BALLROOM, CELLAR, SOUTH

from venue_analytics.harness import TransientError, Venue, VenueResult, attempts, history
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


def test_a_clear_of_a_batch_that_ended_well_opens_the_next_round_once(night: Night) -> None:
    run = night.plan(ARENA)
    end_well(night, run, begin(night, run))
    assert begin(night, run, clear_number=1) == 2
    # its retries, and a clear while it has not ended well
    assert begin(night, run, clear_number=1) == 2
    assert begin(night, run, clear_number=2) == 2
    end_well(night, run, 2, clear_number=2)
    assert begin(night, run, clear_number=2) == 2
    assert begin(night, run, clear_number=3) == 3


def test_a_worker_killed_after_noting_the_good_end_has_nothing_done_again(night: Night) -> None:
    run = night.plan(ARENA)
    end_well(night, run, begin(night, run))
    assert begin(night, run) == 1
    # and what it noted still stands for the next clear
    assert begin(night, run, clear_number=1) == 2


def test_a_try_from_before_the_clear_that_counted_opens_no_round(night: Night) -> None:
    run = night.plan(ARENA)
    end_well(night, run, begin(night, run, clear_number=4), clear_number=4)
    assert begin(night, run, clear_number=3) == 1
    assert begin(night, run, clear_number=4) == 1
    assert begin(night, run, clear_number=5) == 2


def test_a_try_of_an_earlier_round_cannot_end_the_present_one(night: Night) -> None:
    run = night.plan(ARENA)
    end_well(night, run, begin(night, run))
    assert begin(night, run, clear_number=1) == 2
    end_well(night, run, 1, clear_number=1)
    # had it counted, this clear would open a third round over an unfinished second
    assert begin(night, run, clear_number=2) == 2


def test_each_batch_has_rounds_of_its_own(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    end_well(night, run, begin(night, run))
    assert begin(night, run, clear_number=1, batch=0) == 2
    assert begin(night, run, clear_number=1, batch=1) == 1


def test_what_a_round_has_done_counts_until_the_next_is_opened(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM, max_tasks=1)
    night.succeed(run, ARENA)
    night.fail(run, BALLROOM, TransientError("not yet"))
    assert {a.venue_name: a.ended_well for a in night.attempts(run).values()} == {
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
    # plan may die and be retried as often as it likes
    night.plan(ARENA, plan_try=2)
    again = night.plan(ARENA, plan_try=3)
    assert [begin(night, again) for _ in range(2)] == [2, 2]


def test_a_later_plan_follows_on_the_highest_round_of_the_earlier_ones(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    for clear_number in range(3):
        end_well(night, run, begin(night, run, clear_number), clear_number)
    begin(night, run, batch=1)
    second = night.plan(BALLROOM, CELLAR, ARENA, plan_try=2)
    # batch numbers are dealt anew: none of them may meet a round that was had before
    assert [begin(night, second, clear_number=3, batch=batch) for batch in range(3)] == [4, 4, 4]


def test_what_ended_well_under_an_earlier_plan_is_no_proof_for_a_later_one(night: Night) -> None:
    first = night.plan(ARENA)
    night.succeed(first, ARENA)
    second = night.plan(ARENA, plan_try=2)
    assert night.attempts(second) == {}
    assert night.begin(second, ARENA).work.round == 2


def test_a_good_end_under_an_earlier_plan_does_not_end_the_later_ones_batch(night: Night) -> None:
    first = night.plan(ARENA)
    round_ = begin(night, first)
    second = night.plan(ARENA, plan_try=2)
    begin(night, second)
    end_well(night, first, round_)
    assert begin(night, second, clear_number=1) == 2


def test_an_earlier_try_of_plan_that_is_stored_late_opens_nothing(night: Night) -> None:
    second = night.plan(ARENA, plan_try=2)
    end_well(night, second, begin(night, second))
    late = night.plan(ARENA, plan_try=1)
    assert late == second
    assert begin(night, late) == 1


def test_two_deployments_and_two_runs_have_rounds_of_their_own(night: Night) -> None:
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


def test_a_run_that_ended_is_under_way_again_when_a_try_of_it_begins(night: Night) -> None:
    run = night.plan(ARENA)
    night.succeed(run, ARENA)
    end_well(night, run, 1)
    assert finish_run(night.connection, night.leases, night.job, run) == []
    assert history.unfinished_runs(night.connection, LATER) == []
    assert begin(night, run, clear_number=1) == 2
    (left,) = history.unfinished_runs(night.connection, LATER)
    assert left.run_id == run.run_id


def test_a_venue_that_has_come_back_or_changed_hands_is_not_done_already(night: Night) -> None:
    def to_do(venue: Venue, number: int) -> object:
        run = night.plan(venue, key=replace(TONIGHT, run_id=f"run {number}"))
        attempt = night.begin(run, venue)
        with night.connection.transaction():
            night.enter(attempt)
            (found,) = attempts.begin(night.connection, night.job, [attempt])
            if not isinstance(found, str):
                attempts.close(night.connection, night.job, [attempt], [VenueResult()])
        return found

    gone, sold = replace(ARENA, gone=True), replace(ARENA, tenant_id=SOUTH)
    assert not isinstance(to_do(gone, 1), str)
    assert to_do(gone, 2) == "already done"
    assert not isinstance(to_do(ARENA, 3), str)
    assert to_do(ARENA, 4) == "already done"
    assert not isinstance(to_do(sold, 5), str)
