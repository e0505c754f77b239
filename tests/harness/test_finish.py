"""Finish: it compares what was planned with what succeeded, and names everything else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.harness.nights import DAY, THEIRS, TONIGHT, Night
from tests.harness.simple_venues import ARENA, BALLROOM, CELLAR

from venue_analytics.harness import PermanentError, TransientError, attempts, dead_letters, history
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.leases import Leases

FULL = PermanentError("the disk is full")


def finish(night: Night, run: PlannedRun, *failed_batches: int) -> list[str]:
    """Finish a run without waiting for processes that are still stopping."""
    return finish_run(
        night.connection,
        night.leases,
        night.job,
        run,
        failed_batches=failed_batches,
        stopping=timedelta(0),
    )


def letters(night: Night) -> dict[str, str]:
    """Return the open letters: the reason by venue."""
    return {letter.unit_name: letter.error for letter in dead_letters.find(night.connection)}


def test_a_run_whose_venues_are_done_or_skipped_succeeds(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    night.succeed(run, ARENA)
    night.skip(run, BALLROOM)
    assert finish(night, run) == []
    assert night.outcome(run) == "succeeded"
    assert letters(night) == {}


def test_a_run_without_venues_succeeds(night: Night) -> None:
    run = night.plan()
    assert finish(night, run) == []
    assert night.outcome(run) == "succeeded"


def test_a_failed_venue_is_named_with_its_error_and_gets_a_letter(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    night.succeed(run, ARENA)
    night.fail(run, BALLROOM, FULL)
    assert finish(night, run, 1) == ["Ballroom: the disk is full"]
    assert night.outcome(run) == "failed"
    assert letters(night) == {"Ballroom": "the disk is full"}


def test_a_batch_that_never_began_is_named_venue_by_venue(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM, max_tasks=1)
    never = "it was never begun"
    assert finish(night, run, 0) == [f"Arena: {never}", f"Ballroom: {never}"]
    assert letters(night) == {"Arena": never, "Ballroom": never}
    (arena, _) = dead_letters.find(night.connection)
    assert (arena.error_type, arena.attempts, arena.traceback) == ("NotDone", 0, None)


def test_a_batch_without_a_trace_is_named_even_if_airflow_does_not_report_it(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    night.succeed(run, ARENA)
    assert finish(night, run) == ["Ballroom: it was never begun"]


def test_a_cleared_batch_whose_new_try_died_at_once_is_named_although_its_venues_are_done(
    night: Night,
) -> None:
    run = night.plan(ARENA, BALLROOM)
    night.succeed(run, ARENA, BALLROOM)
    assert finish(night, run, 1) == ["Ballroom: its task failed, though its venues are done"]
    assert night.outcome(run) == "failed"
    assert letters(night) == {}


def test_a_failed_batch_is_not_named_besides_its_failed_venue(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM, max_tasks=1)
    night.succeed(run, ARENA)
    night.fail(run, BALLROOM, FULL)
    assert finish(night, run, 0) == ["Ballroom: the disk is full"]


def test_a_success_of_an_earlier_round_does_not_count(night: Night) -> None:
    run = night.plan(ARENA)
    night.succeed(run, ARENA)
    history.end_round_well(night.connection, run, 0, 1, 0)
    # the batch was cleared; its new try opened a round and died
    history.open_round(night.connection, run, 0, 1)
    assert finish(night, run) == ["Arena: it was never begun"]


def test_a_success_of_an_earlier_plan_does_not_count(night: Night) -> None:
    night.succeed(night.plan(ARENA), ARENA)
    assert finish(night, night.plan(ARENA, plan_try=2)) == ["Arena: it was never begun"]


def test_after_a_clear_the_result_of_the_new_try_counts(night: Night) -> None:
    run = night.plan(ARENA)
    night.fail(run, ARENA, FULL)
    assert finish(night, run) == ["Arena: the disk is full"]
    night.succeed(run, ARENA, clear_number=1)
    assert finish(night, run) == []
    assert night.outcome(run) == "succeeded"
    assert letters(night) == {}


def test_a_row_left_open_by_a_killed_process_of_this_run_is_closed(night: Night) -> None:
    run = night.plan(ARENA)
    night.begin(run, ARENA)
    (line,) = finish(night, run)
    assert line == "Arena: its process was killed, or lost its lease"
    assert night.attempts(run)[ARENA.id].outcome == "failed"
    assert letters(night) == {"Arena": "its process was killed, or lost its lease"}


def test_a_row_left_open_by_another_run_is_not_touched(night: Night) -> None:
    run = night.plan(ARENA)
    others = [
        night.plan(BALLROOM, key=replace(TONIGHT, run_id="another night"), as_of=run.as_of - DAY),
        night.plan(CELLAR, key=replace(TONIGHT, deployment=THEIRS)),
    ]
    for other, venue in zip(others, (BALLROOM, CELLAR), strict=True):
        night.begin(other, venue)
    night.succeed(run, ARENA)
    assert finish(night, run) == []
    for other in others:
        assert {a.outcome for a in night.attempts(other).values()} == {"running"}


def test_a_venue_that_is_still_running_is_named_and_keeps_its_lease(night: Night) -> None:
    run = night.plan(ARENA)
    attempt = night.begin(run, ARENA, leased=True)
    assert finish(night, run) == ["Arena: still at work, or its process was killed"]
    assert night.outcome(run) == "failed"
    night.end(attempt)
    assert letters(night) == {}


def test_without_redis_no_process_is_taken_for_dead_and_the_run_fails(night: Night) -> None:
    run = night.plan(ARENA)
    attempt = night.begin(run, ARENA)
    nobody = redis.Redis(unix_socket_path="/nowhere", retry=Retry(NoBackoff(), 0))
    leases = Leases(nobody, night.job.name)
    lines = finish_run(night.connection, leases, night.job, run)
    assert lines == ["Arena: still at work, or its process was killed"]
    assert night.outcome(run) == "failed"
    night.end(attempt)


def test_transient_and_permanent_failures_are_reported_alike(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    night.fail(run, ARENA, TransientError("not loaded yet"))
    night.fail(run, BALLROOM, FULL)
    assert finish(night, run, 0, 1) == ["Arena: not loaded yet", "Ballroom: the disk is full"]


def test_finish_may_run_again_and_reports_the_same(night: Night) -> None:
    run = night.plan(ARENA)
    night.fail(run, ARENA, FULL)
    assert finish(night, run) == finish(night, run)
    (letter,) = dead_letters.find(night.connection)
    assert letter.attempts == 1


def test_the_outcome_of_another_plan_is_left_as_it_is(night: Night) -> None:
    first = night.plan(ARENA)
    second = night.plan(ARENA, plan_try=2)
    night.succeed(second, ARENA)
    assert finish(night, second) == []
    assert (night.outcome(first), night.outcome(second)) == ("planned", "succeeded")


def test_a_row_that_finish_closed_stays_closed(night: Night) -> None:
    run = night.plan(ARENA)
    attempt = night.begin(run, ARENA)
    finish(night, run)
    with pytest.raises(Exception, match="another attempt has taken over"):
        night.end(attempt)
    attempts.close_failed(night.connection, [attempt], FULL)
    assert night.attempts(run)[ARENA.id].error_type == "Killed"


def test_a_venue_that_another_run_has_done_meanwhile_gets_no_letter(night: Night) -> None:
    run = night.plan(ARENA)
    night.fail(run, ARENA, FULL)
    night.succeed(night.plan(ARENA, key=replace(TONIGHT, deployment=THEIRS)), ARENA)
    assert finish(night, run) == ["Arena: the disk is full"]
    assert letters(night) == {}


def test_a_venue_that_another_run_did_before_it_failed_here_gets_its_letter(night: Night) -> None:
    night.succeed(night.plan(ARENA, key=replace(TONIGHT, deployment=THEIRS)), ARENA)
    run = night.plan(ARENA)
    night.fail(run, ARENA, FULL)
    assert finish(night, run) == ["Arena: the disk is full"]
    assert letters(night) == {"Arena": "the disk is full"}


def test_a_venue_that_fails_after_its_success_was_cleared_gets_its_letter(night: Night) -> None:
    run = night.plan(ARENA)
    night.succeed(run, ARENA)
    history.end_round_well(night.connection, run, 0, 1, 0)
    night.fail(run, ARENA, FULL, clear_number=1)
    assert finish(night, run) == ["Arena: the disk is full"]
    assert letters(night) == {"Arena": "the disk is full"}
