"""History: one row per plan, the latest try's counts; one row per attempt, ended once."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from tests.harness.nights import AS_OF, DAY, RULES, THEIRS, TONIGHT, Night
from tests.harness.simple_venues import ARENA, BALLROOM, CELLAR, DOME

from venue_analytics.harness import (
    Outcome,
    PermanentError,
    TransientError,
    Unit,
    UnitResult,
    attempts,
    history,
)
from venue_analytics.harness.batches import pack
from venue_analytics.harness.errors import LeaseLostError
from venue_analytics.harness.history import RunKey

LAST_NIGHT = RunKey(TONIGHT.deployment, TONIGHT.job, "last night")


def test_a_plan_is_read_as_it_was_stored(night: Night) -> None:
    run = night.plan(ARENA, CELLAR)
    assert run.key == TONIGHT
    assert (run.as_of, run.force, run.outcome) == (AS_OF, False, "planned")
    assert run.settings == {"retries": 3}
    assert run.source_faults == ["a venue has no tenant"]
    assert run.left_behind == []


def test_batches_are_read_as_they_were_packed(night: Night) -> None:
    moved = Unit(
        ARENA.id, ARENA.tenant_id, "Arena", "Asia/Tokyo", "JPY", True, CELLAR.tenant_id, 2.5
    )
    venues = [moved, replace(BALLROOM, expected_seconds=7.0), replace(CELLAR, expected_seconds=3.0)]
    run = night.plan(*venues)
    packed = pack(venues, max_tasks=10)
    assert history.load_batches(night.connection, run) == packed
    assert history.load_batches(night.connection, run, 0) == packed[:1]


def test_a_run_that_was_never_planned_is_not_found(night: Night) -> None:
    night.plan(ARENA)
    other = RunKey(THEIRS, TONIGHT.job, TONIGHT.run_id)
    assert history.load_run(night.connection, other) is None
    assert history.load_latest_run(night.connection, TONIGHT.job, "no such run") is None


def test_two_deployments_have_separate_runs_for_the_same_night(night: Night) -> None:
    ours = night.plan(ARENA)
    theirs = night.plan(CELLAR, key=RunKey(THEIRS, TONIGHT.job, TONIGHT.run_id))
    assert theirs.id != ours.id
    assert [batch.label for batch in history.load_batches(night.connection, ours)] == ["Arena"]


def test_the_latest_run_is_the_one_planned_last(night: Night) -> None:
    night.plan(ARENA, key=LAST_NIGHT)
    last = night.plan(CELLAR)
    assert history.load_latest_run(night.connection, TONIGHT.job) == last


def test_a_later_plan_counts_and_the_earlier_one_stays_in_history(night: Night) -> None:
    first = night.plan(ARENA, BALLROOM, CELLAR)
    second = night.plan(DOME, plan_try=2)
    assert second.id > first.id
    assert [batch.label for batch in history.load_batches(night.connection, second)] == ["Dome"]
    assert len(history.load_batches(night.connection, first)) == 3


def test_a_plan_of_an_earlier_try_that_is_stored_late_does_not_count(night: Night) -> None:
    second = night.plan(DOME, plan_try=2)
    assert night.plan(ARENA, BALLROOM, plan_try=1) == second
    assert history.load_latest_run(night.connection, TONIGHT.job) == second


def test_a_try_of_plan_stores_only_one_plan(night: Night) -> None:
    night.plan(ARENA)
    with pytest.raises(LookupError, match="run tonight of diary: try 1 has a plan already"):
        night.plan(ARENA)


def test_attempts_of_an_earlier_plan_do_not_count(night: Night) -> None:
    night.succeed(night.plan(ARENA, BALLROOM), ARENA)
    second = night.plan(ARENA, BALLROOM, plan_try=2)
    assert night.attempts(second) == {}
    night.succeed(second, BALLROOM)
    assert set(night.attempts(second)) == {BALLROOM.id}


def test_the_last_attempt_of_a_round_counts(night: Night) -> None:
    run = night.plan(ARENA)
    night.fail(run, ARENA, TransientError("the first try"))
    night.fail(run, ARENA, TransientError("the second try"), try_number=2)
    assert night.attempts(run)[ARENA.id].error == "the second try"


def test_a_success_counts_whatever_fails_after_it_in_the_same_round(night: Night) -> None:
    run = night.plan(ARENA)
    night.succeed(run, ARENA)
    night.fail(run, ARENA, TransientError("woke up late"), try_number=2)
    last = night.attempts(run)[ARENA.id]
    assert (last.outcome, last.ended_well, last.error) == ("succeeded", True, None)


def test_an_attempt_that_has_ended_is_not_ended_again(night: Night) -> None:
    run = night.plan(ARENA)
    attempt = night.begin(run, ARENA)
    night.end(attempt, UnitResult(rows_written=7))
    attempts.close_failed(night.connection, [attempt], TransientError("too late"))
    with pytest.raises(LeaseLostError, match="its row in history was closed by another process"):
        night.end(attempt)
    last = night.attempts(run)[ARENA.id]
    assert (last.outcome, last.rows_written, last.error) == ("succeeded", 7, None)


def test_a_failure_is_noted_with_its_message_place_and_whether_to_retry(
    night: Night,
) -> None:
    run = night.plan(ARENA)
    try:
        raise PermanentError("no such seat")
    except PermanentError as error:
        night.fail(run, ARENA, error)
    last = night.attempts(run)[ARENA.id]
    assert (last.error_type, last.error, last.permanent) == ("PermanentError", "no such seat", True)
    assert "test_a_failure_is_noted" in (last.traceback or "")


def test_an_attempt_that_failed_before_it_had_a_row_is_noted_too(night: Night) -> None:
    run = night.plan(ARENA)
    attempt = night.begin(run, ARENA)
    attempt.start_over()
    attempts.close_failed(night.connection, [attempt], TransientError("Redis does not answer"))
    last = night.attempts(run)[ARENA.id]
    assert (last.outcome, last.error) == ("failed", "Redis does not answer")


def test_the_last_duration_of_a_venue_is_that_of_its_last_success(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM, CELLAR)
    night.succeed(run, ARENA)
    night.skip(run, BALLROOM)
    night.fail(run, CELLAR, TransientError("not yet"))
    with night.database.superuser() as superuser:
        superuser.execute("UPDATE jobs.unit_run SET seconds = 9")
    ids = [venue.id for venue in (ARENA, BALLROOM, CELLAR, DOME)]
    assert history.last_durations(night.connection, TONIGHT.job, ids) == {ARENA.id: 9}


# tokens ------------------------------------------------------------------------------------


def test_each_attempt_draws_the_next_token_and_fences_off_the_one_before(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    first, second = night.begin(run, ARENA), night.begin(run, ARENA, try_number=2)
    assert (first.token, second.token) == (1, 2)
    assert night.begin(run, BALLROOM).token == 1
    with pytest.raises(LeaseLostError, match="another attempt has taken over"):
        night.end(first)
    night.end(second)


def test_a_venue_without_a_drawn_token_may_not_be_entered(night: Night) -> None:
    attempt = night.begin(night.plan(ARENA), ARENA)
    attempt.unit = BALLROOM
    with pytest.raises(LeaseLostError), night.connection.transaction():
        night.enter(attempt)


def test_no_venue_is_entered_without_a_tenant(night: Night) -> None:
    attempt = night.begin(night.plan(ARENA), ARENA)
    with pytest.raises(psycopg.errors.NullValueNotAllowed), night.connection.transaction():
        night.connection.execute(
            "SELECT jobs.enter(%s, NULL, %s, %s, NULL)",
            [TONIGHT.job, [attempt.unit.id], [attempt.token]],
        )


# current results ---------------------------------------------------------------------------


def test_the_current_result_is_the_latest_success_by_token(night: Night) -> None:
    tonight = night.plan(ARENA)
    older = night.plan(ARENA, key=LAST_NIGHT, as_of=AS_OF - DAY)
    night.succeed(tonight, ARENA)
    night.succeed(older, ARENA)
    asked = night.begin(tonight, ARENA, try_number=2)
    ((done, checkpoint),) = attempts.standing(night.connection, night.job, [asked])
    assert done is not None
    assert (done.as_of, done.plan, done.round) == (AS_OF - DAY, older.id, 1)
    assert done.rules_hash == RULES
    assert checkpoint is None


def test_a_result_counts_for_the_latest_plan_that_found_it_done(night: Night) -> None:
    first = night.plan(ARENA)
    night.succeed(first, ARENA)
    theirs = night.plan(ARENA, key=RunKey(THEIRS, TONIGHT.job, TONIGHT.run_id))
    night.skip(theirs, ARENA)
    ((done, _),) = attempts.standing(night.connection, night.job, [night.begin(first, ARENA)])
    assert done is not None
    assert (done.plan, done.for_plan) == (first.id, theirs.id)


def test_a_skipped_attempt_is_not_a_result(night: Night) -> None:
    run = night.plan(ARENA)
    night.end(night.begin(run, ARENA), UnitResult(Outcome.SKIPPED, reason="nothing to do"))
    asked = night.begin(run, ARENA)
    assert attempts.standing(night.connection, night.job, [asked]) == [(None, None)]


# shown to people ---------------------------------------------------------------------------


def test_runs_are_listed_latest_first_with_the_outcomes_of_their_venues(night: Night) -> None:
    last = night.plan(ARENA, key=LAST_NIGHT, as_of=AS_OF - DAY)
    night.succeed(night.plan(ARENA), ARENA)
    tonight = night.plan(ARENA, BALLROOM, CELLAR, DOME, plan_try=2)
    night.succeed(tonight, ARENA)
    night.skip(tonight, BALLROOM)
    night.fail(tonight, CELLAR, TransientError("not yet"))
    history.end_run(night.connection, last, Outcome.FAILED)
    first, second = history.list_runs(night.connection, TONIGHT.job, 10)
    assert (first.run_id, first.outcome, first.finished_at) == ("tonight", "planned", None)
    # the earlier plan of tonight is not listed
    assert (first.planned, first.succeeded, first.skipped, first.failed) == (4, 1, 1, 1)
    assert (second.run_id, second.outcome, second.planned) == ("last night", "failed", 1)
    assert history.list_runs(night.connection, None, 1) == [first]
    assert history.list_runs(night.connection, "another job", 10) == []


def test_the_attempts_at_a_venue_are_listed_latest_first(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    night.fail(run, ARENA, TransientError("not yet"))
    night.succeed(run, BALLROOM)
    night.end(night.begin(run, ARENA, try_number=2), UnitResult(rows_written=7))
    second, first = history.list_attempts(night.connection, ARENA.id, None, 10)
    assert (first.outcome, first.reason, first.try_number, first.token) == (
        "failed",
        "not yet",
        1,
        1,
    )
    assert (second.outcome, second.rows_written, second.try_number) == ("succeeded", 7, 2)
    assert history.list_attempts(night.connection, ARENA.id, TONIGHT.job, 1) == [second]
    assert history.list_attempts(night.connection, ARENA.id, "another job", 10) == []
