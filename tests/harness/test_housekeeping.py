"""Housekeeping: dead attempts are fenced off and their rows closed; living ones are left alone."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.harness.nights import DAY, THEIRS, TONIGHT, Night
from tests.harness.simple_venues import ARENA, BALLROOM, CELLAR, DOME

from venue_analytics.harness import PermanentError, TransientError, attempts, dead_letters
from venue_analytics.harness.attempts import UnitAttempt
from venue_analytics.harness.errors import LeaseLostError
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.housekeeping import (
    close_dead,
    close_left_running,
    end_runs_left_open,
)
from venue_analytics.harness.leases import Leases

LAST_NIGHT = replace(TONIGHT, run_id="last night")


def keep_house(night: Night, run: PlannedRun | None = None) -> None:
    close_left_running(night.connection, night.leases, night.job.name, run.key if run else None)


def outcome(night: Night, attempt: UnitAttempt) -> str:
    row = night.connection.execute(
        "SELECT outcome FROM jobs.unit_run WHERE id = %s", [attempt.row]
    ).fetchone()
    assert row is not None
    return str(row[0])


def fence(night: Night, attempt: UnitAttempt) -> int:
    row = night.connection.execute(
        "SELECT token FROM jobs.fence WHERE job = %s AND unit_id = %s",
        [night.job.name, attempt.unit.id],
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_an_attempt_that_holds_its_lease_is_left_alone(night: Night) -> None:
    attempt = night.begin(night.plan(ARENA), ARENA, leased=True)
    keep_house(night)
    assert outcome(night, attempt) == "running"
    night.end(attempt)
    assert outcome(night, attempt) == "succeeded"


def test_an_attempt_without_a_lease_is_closed_and_fenced_off_even_if_it_only_slept(
    night: Night,
) -> None:
    attempt = night.begin(night.plan(ARENA), ARENA)
    keep_house(night)
    assert outcome(night, attempt) == "failed"
    with pytest.raises(LeaseLostError), night.connection.transaction():
        night.enter(attempt)


def test_a_lease_of_another_try_or_run_does_not_keep_an_attempt_alive(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    dead = [night.begin(run, venue) for venue in (ARENA, BALLROOM)]
    others = (
        replace(dead[0].holder, try_number=2),
        replace(dead[1].holder, deployment=THEIRS),
    )
    for attempt, other in zip(dead, others, strict=True):
        night.leases.take({attempt.unit.id: other})
    keep_house(night)
    assert [outcome(night, attempt) for attempt in dead] == ["failed", "failed"]


def test_a_living_attempt_with_a_newer_token_keeps_its_token(night: Night) -> None:
    run = night.plan(ARENA)
    dead = night.begin(run, ARENA)
    living = night.begin(run, ARENA, try_number=2, leased=True)
    keep_house(night)
    assert outcome(night, dead) == "failed"
    assert fence(night, dead) == living.token
    night.end(living)
    assert outcome(night, living) == "succeeded"


def test_a_row_that_succeeded_meanwhile_is_not_closed(night: Night) -> None:
    attempt = night.begin(night.plan(ARENA), ARENA)
    night.end(attempt)
    assert attempt.token is not None
    assert attempt.row is not None
    close_dead(night.connection, night.job.name, ARENA.id, attempt.token, attempt.row)
    assert outcome(night, attempt) == "succeeded"


def test_the_fence_and_the_row_change_together_or_not_at_all(night: Night) -> None:
    attempt = night.begin(night.plan(ARENA), ARENA)
    with night.database.superuser() as superuser:
        superuser.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'no room'; END $$; CREATE TRIGGER refuse BEFORE UPDATE "
            "ON jobs.unit_run FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    with pytest.raises(psycopg.errors.RaiseException):
        keep_house(night)
    assert fence(night, attempt) == attempt.token


def test_a_venue_with_an_open_transaction_is_left_and_the_others_are_closed(
    night: Night,
) -> None:
    run = night.plan(ARENA, BALLROOM)
    attempt, dead = night.begin(run, ARENA), night.begin(run, BALLROOM)
    with night.database.jobs() as orphan, orphan.transaction():
        attempts.enter(orphan, [attempt])
        night.connection.execute("SET lock_timeout = '100 ms'")
        keep_house(night)
    assert (outcome(night, attempt), outcome(night, dead)) == ("running", "failed")


def test_housekeeping_can_be_limited_to_one_run(night: Night) -> None:
    tonight = night.begin(night.plan(ARENA), ARENA)
    theirs = night.begin(night.plan(BALLROOM, key=replace(TONIGHT, deployment=THEIRS)), BALLROOM)
    last = night.plan(CELLAR, key=LAST_NIGHT, as_of=tonight.run.as_of - DAY)
    others = [theirs, night.begin(last, CELLAR)]
    keep_house(night, tonight.run)
    assert outcome(night, tonight) == "failed"
    assert [outcome(night, other) for other in others] == ["running", "running"]
    keep_house(night)
    assert [outcome(night, other) for other in others] == ["failed", "failed"]


def test_housekeeping_covers_all_plans_of_a_run(night: Night) -> None:
    dead = night.begin(night.plan(ARENA), ARENA)
    keep_house(night, night.plan(ARENA, plan_try=2))
    assert outcome(night, dead) == "failed"


def test_another_jobs_rows_are_left_alone(night: Night) -> None:
    attempt = night.begin(night.plan(ARENA), ARENA)
    close_left_running(night.connection, night.leases, "another job")
    assert outcome(night, attempt) == "running"


def test_without_redis_no_attempt_is_taken_for_dead(night: Night) -> None:
    attempt = night.begin(night.plan(ARENA), ARENA)
    nobody = redis.Redis(unix_socket_path="/nowhere", retry=Retry(NoBackoff(), 0))
    with pytest.raises(TransientError, match="Redis does not answer"):
        close_left_running(night.connection, Leases(nobody, night.job.name), night.job.name)
    assert outcome(night, attempt) == "running"


# runs that ended without their finish ------------------------------------------------------


def test_a_run_left_open_is_ended_with_a_line_and_letters_for_what_was_not_done(
    night: Night,
) -> None:
    run = night.plan(ARENA, BALLROOM, CELLAR, DOME)
    night.succeed(run, ARENA)
    night.skip(run, BALLROOM)
    night.fail(run, CELLAR, PermanentError("no such seat"))
    (line,) = end_runs_left_open(night.connection, night.job, [run])
    assert line == (
        "run tonight as of 2026-03-01 02:00:00 UTC ended without its finish; not done: Cellar, Dome"
    )
    assert night.outcome(run) == "failed"
    assert {
        letter.unit_name: (letter.error_type, letter.error)
        for letter in dead_letters.find(night.connection)
    } == {
        "Cellar": ("PermanentError", "no such seat"),
        "Dome": ("NotDone", "it was never begun"),
    }


def test_a_run_left_open_whose_venues_are_all_done_succeeds(night: Night) -> None:
    run = night.plan(ARENA)
    night.succeed(run, ARENA)
    assert end_runs_left_open(night.connection, night.job, [run]) == []
    assert night.outcome(run) == "succeeded"
    assert dead_letters.find(night.connection) == []


def test_each_run_left_open_has_a_line(night: Night) -> None:
    runs = [night.plan(ARENA), night.plan(BALLROOM, key=LAST_NIGHT)]
    lines = end_runs_left_open(night.connection, night.job, runs)
    assert [line.split(" as of ")[0] for line in lines] == ["run tonight", "run last night"]
    assert end_runs_left_open(night.connection, night.job, []) == []
