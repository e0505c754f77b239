"""Effects: an action outside the database is performed once, and none is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.databases import Database
from tests.harness.mails import MAILS, TABLES, Office, due, keep, mail_job, report, send
from tests.harness.nights import AS_OF, DAY, THEIRS
from tests.harness.runner import Runner
from tests.harness.simple_venues import ARENA, NORTH, SOUTH
from tests.harness.test_performed_while_abandoned import wait_for_lock

from venue_analytics.database.statements import statement
from venue_analytics.harness import (
    Action,
    Effect,
    Job,
    Preview,
    Report,
    TransientError,
    Unit,
    UnitResult,
    dead_letters,
)
from venue_analytics.harness.dead_letters import DeadLetter
from venue_analytics.harness.history import PlannedRun

ONLY_ARENA = {"venues": [str(ARENA.id)]}


class Killed(BaseException):
    """Stands for a kill: only the clean-up runs afterwards."""


def be_stopped(_: Action) -> None:
    raise Killed


def send_and_be_stopped(action: Action) -> None:
    send(action)
    raise Killed


@pytest.fixture
def office(runner: Runner, simple: Database, tmp_path: Path) -> Iterator[Office]:
    with simple.superuser() as superuser:
        superuser.execute(TABLES)
        yield Office(superuser, tmp_path / "outbox")


def plan(
    runner: Runner, job: Job[Any] = MAILS, run_id: str = "tonight", **options: Any
) -> PlannedRun:
    return runner.plan(job, run_id, conf=ONLY_ARENA, **options)


def run(
    runner: Runner, job: Job[Any] = MAILS, run_id: str = "tonight", **options: Any
) -> PlannedRun:
    return runner.run(job, run_id, conf=ONLY_ARENA, **options)


def run_next_night(runner: Runner, job: Job[Any] = MAILS) -> PlannedRun:
    return run(runner, job, "next night", as_of=AS_OF + DAY)


def only(runner: Runner, *, ended: bool = False) -> DeadLetter:
    (letter,) = dead_letters.find(runner.connection, ended=ended)
    return letter


def replay(runner: Runner, letter: DeadLetter, number: int = 1) -> None:
    """Replay a letter as the command line does: mark it, run its unit as of now, reopen it."""
    assert dead_letters.begin_replay(runner.connection, letter)
    run(runner, MAILS, f"replay {number}", as_of=AS_OF + number * timedelta(days=10))
    dead_letters.end_replay(runner.connection, letter)


def test_an_action_that_several_runs_find_due_is_performed_once(
    runner: Runner, office: Office
) -> None:
    office.want("a", "b")
    tonight = run(runner)
    assert office.sent() == office.kept() == ["a", "b"]
    assert office.states() == {"a": "done", "b": "done"}
    # cleared, in another deployment, and in another night
    assert runner.process(MAILS, tonight, try_number=2, clear_number=1) == []
    run(runner, deployment=THEIRS, as_of=AS_OF + timedelta(hours=1))
    office.want("c")
    run_next_night(runner)
    assert office.sent() == office.kept() == ["a", "b", "c"]
    assert dead_letters.find(runner.connection, ended=True) == []


def test_a_key_that_is_due_twice_at_once_is_performed_once(runner: Runner, office: Office) -> None:
    office.want("a")
    twice = Effect(lambda run: [*due(run), *due(run)], send, keep)
    run(runner, mail_job(send=twice, report=report))
    assert office.sent() == ["a"]


def test_an_action_that_another_process_has_claimed_is_left_to_it(
    runner: Runner, office: Office
) -> None:
    def send_while_another_claims(action: Action) -> None:
        send(action)
        office.superuser.execute(
            "INSERT INTO jobs.action (job, unit_id, key, run, token) "
            "SELECT job, unit_id, 'b', run, token FROM jobs.action WHERE key = 'a'"
        )

    office.want("a", "b")
    run(runner, mail_job(send_while_another_claims))
    assert office.sent() == ["a"]


def test_two_units_may_have_actions_with_the_same_key(runner: Runner, office: Office) -> None:
    office.want("a")
    office.want("a", unit=replace(ARENA, id=UUID(int=5)))
    office.superuser.execute("INSERT INTO venues VALUES (%s, %s, 'Foyer')", [UUID(int=5), NORTH])
    runner.run(MAILS)
    assert office.sent() == ["a", "a"]


def test_a_refused_action_has_a_letter_and_the_others_go_on(runner: Runner, office: Office) -> None:
    office.want("a", "c")
    office.want("b", mood="refused")
    run(runner)
    assert office.sent() == office.kept() == ["a", "c"]
    assert office.states() == {"a": "done", "b": "refused", "c": "done"}
    letter = only(runner)
    assert (letter.kind, letter.key, letter.unit_id) == ("action", "b", ARENA.id)
    assert (letter.error_type, letter.error) == ("PermanentError", "no such address")
    assert dead_letters.payload(runner.connection, letter) == {
        "mood": "refused",
        "outbox": str(office.outbox),
    }
    # the unit's next success does not resolve it, and no run tries the action again
    office.want("b")
    run_next_night(runner)
    assert office.sent() == ["a", "c"]
    assert only(runner) == letter


def test_only_an_action_that_may_succeed_later_is_tried_again(
    runner: Runner, office: Office
) -> None:
    office.want("a", "c")
    office.want("b", mood="later")
    prepared: list[object] = []
    job = mail_job(prepare=prepared.append, send=MAILS.steps["send"], report=report)
    tonight = plan(runner, job)
    assert runner.process(job, tonight) == [
        "Arena: 1 of 3 actions could not be performed yet: the server is busy"
    ]
    assert office.sent() == office.kept() == ["a", "c"]
    assert dead_letters.find(runner.connection) == []
    assert runner.process(job, tonight, try_number=2) == [
        "Arena: 1 of 1 actions could not be performed yet: the server is busy"
    ]
    office.want("b")
    assert runner.process(job, tonight, try_number=3) == []
    assert runner.finish(job, tonight) == []
    assert office.sent() == ["a", "c", "b"]
    assert office.kept() == ["a", "b", "c"]
    assert len(prepared) == 1
    assert dead_letters.find(runner.connection, ended=True) == []


def test_an_action_of_unknown_outcome_has_a_letter_and_is_not_tried_again(
    runner: Runner, office: Office
) -> None:
    office.want("a", mood="unknown")
    office.want("b")
    tonight = run(runner)
    assert office.states() == {"a": "unknown", "b": "done"}
    letter = only(runner)
    assert (letter.key, letter.error) == ("a", "ValueError: the answer cannot be read")
    office.want("a")
    assert runner.process(MAILS, tonight, try_number=2, clear_number=1) == []
    run_next_night(runner)
    assert office.sent() == ["a", "b"]
    assert office.kept() == ["b"]
    assert only(runner) == letter


def test_an_action_whose_record_fails_has_a_letter(runner: Runner, office: Office) -> None:
    office.want("a")
    office.superuser.execute("ALTER TABLE kept ADD CONSTRAINT broken CHECK (key <> 'a')")
    tonight = plan(runner)
    assert runner.process(MAILS, tonight) == []
    assert runner.finish(MAILS, tonight) == []
    assert (office.sent(), office.kept()) == (["a"], [])
    assert (office.states(), office.letters()) == ({"a": "done"}, {"a": "open"})


def test_after_a_stopped_process_the_next_try_writes_a_letter_and_performs_the_rest(
    runner: Runner, office: Office
) -> None:
    office.want("a", "b")
    tonight = plan(runner)
    with pytest.raises(Killed):
        runner.process(mail_job(send_and_be_stopped), tonight)
    assert (office.states(), office.letters()) == ({"a": "claimed"}, {})
    assert runner.process(MAILS, tonight, try_number=2) == []
    assert office.sent() == ["a", "b"]
    assert office.kept() == ["b"]
    assert office.states() == {"a": "unknown", "b": "done"}
    letter = only(runner)
    assert (letter.kind, letter.key, letter.error_type) == ("action", "a", "UnknownEndError")
    assert "nobody knows whether it was done" in letter.error
    assert dead_letters.payload(runner.connection, letter) == {
        "mood": "plain",
        "outbox": str(office.outbox),
    }


def test_a_replay_that_dies_leaves_the_letter_its_payload(runner: Runner, office: Office) -> None:
    office.want("a", mood="refused")
    run(runner)
    letter = only(runner)
    known = dead_letters.payload(runner.connection, letter)
    assert dead_letters.begin_replay(runner.connection, letter)
    again = plan(runner, run_id="replay", as_of=AS_OF + DAY)
    with pytest.raises(Killed):
        runner.process(mail_job(be_stopped), again)
    runner.finish(MAILS, again)
    (renewed,) = [one for one in dead_letters.find(runner.connection) if one.kind == "action"]
    assert (renewed.id, renewed.error_type) == (letter.id, "UnknownEndError")
    assert dead_letters.payload(runner.connection, renewed) == known


def test_finish_writes_the_letter_if_no_further_attempt_follows(
    runner: Runner, office: Office
) -> None:
    office.want("a")
    tonight = plan(runner)
    with pytest.raises(Killed):
        runner.process(mail_job(send_and_be_stopped), tonight)
    assert len(runner.finish(MAILS, tonight)) == 1
    assert (office.states(), office.letters()) == ({"a": "unknown"}, {"a": "open"})
    # finish writes no second letter
    assert len(runner.finish(MAILS, tonight)) == 1
    kinds = [letter.kind for letter in dead_letters.find(runner.connection, ended=True)]
    assert sorted(kinds) == ["action", "unit"]


def test_finish_leaves_the_claim_of_a_living_process_alone(runner: Runner, office: Office) -> None:
    def send_while_another_run_finishes(action: Action) -> None:
        send(action)
        runner.finish(MAILS, theirs)
        assert (office.states(), office.letters()) == ({"a": "claimed"}, {})

    office.want("a")
    theirs = plan(runner, run_id="theirs", deployment=THEIRS)
    run(runner, mail_job(send_while_another_run_finishes))
    assert office.states() == {"a": "done"}
    assert "action" not in {letter.kind for letter in dead_letters.find(runner.connection)}


def test_a_sleeper_that_records_late_resolves_its_letter_and_performs_nothing_else(
    runner: Runner, office: Office
) -> None:
    def send_and_sleep(action: Action) -> None:
        send(action)
        runner.redis.flushall()  # the lease has expired, and another run takes the unit over
        assert runner.process(MAILS, theirs) == []
        assert (office.states()["a"], office.letters()) == ("unknown", {"a": "open"})

    office.want("a", "b")
    theirs = plan(runner, run_id="theirs", deployment=THEIRS)
    (failure,) = runner.process(mail_job(send_and_sleep), plan(runner))
    assert "another attempt has taken over" in failure
    assert office.sent() == office.kept() == ["a", "b"]
    assert office.states() == {"a": "done", "b": "done"}
    assert office.letters() == {"a": "resolved"}
    # the resolved letter cannot be replayed
    assert not dead_letters.begin_replay(runner.connection, only(runner, ended=True))
    assert office.states() == {"a": "done", "b": "done"}


def test_an_action_that_a_sleeper_did_not_perform_may_be_performed_and_resolves_its_letter(
    runner: Runner, office: Office
) -> None:
    def sleep_and_be_busy(action: Action) -> None:
        runner.redis.flushall()
        assert runner.process(MAILS, theirs) == []
        send(action)

    office.want("a", mood="later")
    theirs = plan(runner, run_id="theirs", deployment=THEIRS)
    assert len(runner.process(mail_job(sleep_and_be_busy), plan(runner))) == 1
    # certainly not done: it may be claimed again, which resolves the letter
    assert (office.states(), office.letters()) == ({}, {"a": "open"})
    office.want("a")
    run_next_night(runner)
    assert office.sent() == office.kept() == ["a"]
    assert office.letters() == {"a": "resolved"}


@pytest.mark.parametrize("mood", ["refused", "unknown"])
def test_a_replay_performs_the_action_again_and_resolves_the_letter(
    runner: Runner, office: Office, mood: str
) -> None:
    office.want("a", mood=mood)
    run(runner)
    before = office.sent()
    letter = only(runner)
    # a replay that fails renews the letter
    replay(runner, letter, 1)
    renewed = only(runner)
    assert (renewed.id, renewed.state, renewed.attempts) == (letter.id, "open", 2)
    assert office.sent() == before * 2
    office.want("a")
    replay(runner, letter, 2)
    assert office.sent() == [*before * 2, "a"]
    assert office.kept() == ["a"]
    assert (office.states(), office.letters()) == ({"a": "done"}, {"a": "resolved"})
    assert not dead_letters.begin_replay(runner.connection, letter)


def test_a_discarded_action_is_never_performed_again(runner: Runner, office: Office) -> None:
    office.want("a", mood="refused")
    run(runner)
    letter = only(runner)
    assert dead_letters.discard(runner.connection, letter, reason="moved", by="ada")
    office.want("a")
    run_next_night(runner)
    assert office.sent() == []
    assert (office.states(), office.letters()) == ({"a": "refused"}, {"a": "discarded"})


def test_an_action_discarded_after_a_failed_replay_is_not_performed_either(
    runner: Runner, office: Office
) -> None:
    office.want("a", mood="refused")
    run(runner)
    letter = only(runner)
    # the replay ends before it reaches the action
    assert dead_letters.begin_replay(runner.connection, letter)
    dead_letters.end_replay(runner.connection, letter)
    assert dead_letters.discard(runner.connection, letter, reason="moved", by="ada")
    office.want("a")
    run_next_night(runner)
    assert office.sent() == []


def test_no_action_is_performed_for_a_unit_that_is_gone(runner: Runner, office: Office) -> None:
    office.want("a")
    job = mail_job(send=MAILS.steps["send"], report=report)
    runner.run(job)
    office.want("b")
    office.superuser.execute("DELETE FROM venues WHERE id = %s", [ARENA.id])
    gone = runner.run(job, "next night", as_of=AS_OF + DAY)
    assert runner.outcomes(job, gone)[str(ARENA.id)] == "succeeded: venue gone: its rows removed"
    assert office.sent() == ["a"]
    assert office.kept() == []


def test_a_unit_that_changed_hands_leaves_no_rows_behind_even_if_its_first_step_is_an_effect(
    runner: Runner, office: Office
) -> None:
    office.want("a")
    job = mail_job(send=MAILS.steps["send"], report=report)
    run(runner, job)
    office.superuser.execute("UPDATE venues SET tenant_id = %s WHERE id = %s", [SOUTH, ARENA.id])
    office.want("b")
    run_next_night(runner, job)
    rows = office.superuser.execute("SELECT tenant_id, key FROM kept").fetchall()
    assert rows == [(SOUTH, "b")]


def test_an_effect_is_never_the_last_step() -> None:
    with pytest.raises(TypeError, match="'send' of mails: an Effect cannot be the last step"):
        mail_job(report=lambda _: UnitResult(), send=Effect(due, send))


def test_a_sleeper_does_not_free_an_action_whose_letter_was_discarded(
    runner: Runner, office: Office
) -> None:
    def sleep_and_be_refused(_: Action) -> None:
        runner.redis.flushall()
        assert runner.process(MAILS, theirs) == []
        assert dead_letters.discard(runner.connection, only(runner), reason="no", by="ada")
        raise TransientError("the server is busy")

    office.want("a")
    theirs = plan(runner, run_id="theirs", deployment=THEIRS)
    runner.process(mail_job(sleep_and_be_refused), plan(runner))
    run_next_night(runner)
    assert (office.sent(), office.letters()) == ([], {"a": "discarded"})


def test_a_failed_record_stops_no_other_action(runner: Runner, office: Office) -> None:
    def keep_all_but_a(connection: psycopg.Connection, unit: Unit, action: Action) -> None:
        if action.key == "a":
            raise ValueError("no room")
        keep(connection, unit, action)

    office.want("a", "b")
    run(runner, mail_job(send=Effect(due, send, keep_all_but_a), report=report))
    assert (office.sent(), office.kept()) == (["a", "b"], ["b"])
    assert office.states() == {"a": "done", "b": "done"}
    assert only(runner).error == "ValueError: no room"


def test_a_payload_that_is_not_json_is_refused_before_any_action(
    runner: Runner, office: Office
) -> None:
    def due_at_a_moment(_: Any) -> Iterator[Action]:
        yield Action("good", {"mood": "plain", "outbox": str(office.outbox)})
        yield Action("bad", {"at": AS_OF})

    job = mail_job(send=Effect(due_at_a_moment, send), report=report)
    (failure,) = runner.process(job, plan(runner, job))
    assert "action bad: its payload must be JSON" in failure
    assert (office.sent(), office.states()) == ([], {})


def test_a_payload_is_never_stored_under_another_tenant(runner: Runner, office: Office) -> None:
    office.want("a")
    with pytest.raises(Killed):
        runner.process(mail_job(send_and_be_stopped), plan(runner))
    office.superuser.execute("UPDATE venues SET tenant_id = %s WHERE id = %s", [SOUTH, ARENA.id])
    run_next_night(runner)
    stored = office.superuser.execute("SELECT tenant_id, payload FROM jobs.dead_letter_payload")
    assert stored.fetchall() == [(NORTH, {})]


def test_a_replay_that_does_not_come_to_its_action_leaves_it_to_people(
    runner: Runner, office: Office
) -> None:
    office.want("a", mood="refused")
    run(runner)
    letter = only(runner)
    assert dead_letters.begin_replay(runner.connection, letter)
    dead_letters.end_replay(runner.connection, letter)
    office.want("a")
    run_next_night(runner)
    assert (office.sent(), office.letters()) == ([], {"a": "open"})


def test_a_discarded_letter_frees_no_action(runner: Runner, office: Office) -> None:
    office.want("a", mood="unknown")
    run(runner)
    letter = only(runner)
    assert dead_letters.discard(runner.connection, letter, reason="no", by="ada")
    assert not dead_letters.begin_replay(runner.connection, letter)
    assert office.states() == {"a": "unknown"}


def test_a_letter_discarded_while_its_replay_dies_gets_no_successor(
    runner: Runner, office: Office
) -> None:
    office.want("a", mood="refused")
    run(runner)
    letter = only(runner)
    assert dead_letters.begin_replay(runner.connection, letter)
    again = plan(runner, run_id="replay", as_of=AS_OF + DAY)
    with pytest.raises(Killed):
        runner.process(mail_job(be_stopped), again)
    assert dead_letters.discard(runner.connection, letter, reason="no", by="ada")
    runner.finish(MAILS, again)
    assert (office.states(), office.letters()) == ({"a": "unknown"}, {"a": "discarded"})


def test_the_finish_of_a_dry_run_changes_no_action(runner: Runner, office: Office) -> None:
    office.want("a")
    with pytest.raises(Killed):
        runner.process(mail_job(send_and_be_stopped), plan(runner))
    dry = replace(MAILS, preview=Preview(report, lambda _: Report()))
    runner.run(dry, "dry", conf={**ONLY_ARENA, "dry_run": True})
    assert (office.states(), office.letters()) == ({"a": "claimed"}, {})


@pytest.mark.parametrize("name", ["record_action", "end_action", "release_action"])
def test_an_older_claim_ends_nothing_of_a_newer_one(
    runner: Runner, office: Office, name: str
) -> None:
    tonight = plan(runner)
    newer = {"job": "mails", "unit_id": ARENA.id, "key": "a", "run": tonight.id, "token": 2}
    runner.connection.execute(statement("venue_analytics.harness", "claim_action"), newer)
    older = newer | {"token": 1, "state": "refused"}
    runner.connection.execute(statement("venue_analytics.harness", name), older)
    rows = runner.connection.execute("SELECT token, state FROM jobs.action").fetchall()
    assert rows == [(2, "claimed")]


@pytest.mark.parametrize("is_replay", [True, False], ids=["replay", "discard"])
def test_a_letter_is_locked_after_its_action(
    runner: Runner, office: Office, simple: Database, is_replay: bool
) -> None:
    """Whoever records an action locks it before its letter: the other order could deadlock."""
    office.want("a", mood="unknown")
    run(runner)
    letter = only(runner)
    with simple.jobs() as recorder, simple.jobs() as person, ThreadPoolExecutor() as pool:
        with recorder.transaction():
            recorder.execute("SELECT FROM jobs.action FOR UPDATE")
            answer = pool.submit(
                partial(dead_letters.begin_replay, person, letter)
                if is_replay
                else partial(dead_letters.discard, person, letter, reason="no", by="ada")
            )
            wait_for_lock(office.superuser, person)
            recorder.execute("SELECT FROM jobs.dead_letter FOR UPDATE NOWAIT")
        assert answer.result()
