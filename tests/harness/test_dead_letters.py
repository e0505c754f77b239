"""Dead letters: what could not be done has one open letter until it is done or given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.harness.nights import AS_OF, DAY, TONIGHT, Night
from tests.harness.simple_venues import ARENA, BALLROOM, NORTH, SOUTH

from venue_analytics.harness import (
    Job,
    PermanentError,
    TransientError,
    Unit,
    UnitResult,
    UnitRun,
    VenueSettings,
    dead_letters,
    history,
)
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.dead_letters import DeadLetter
from venue_analytics.harness.failures import UnitFailure
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.process import process_batch

BROKEN = PermanentError("no such seat")
LAST_NIGHT = replace(TONIGHT, run_id="last night")
NEXT_NIGHT = replace(TONIGHT, run_id="next night")
Step = Callable[[UnitRun[VenueSettings]], UnitResult | None]


def fail(night: Night, run: PlannedRun, *venues: Unit, tries: int = 1) -> None:
    """Fail venues of a run, and finish it."""
    for venue in venues:
        for try_number in range(1, tries + 1):
            night.fail(run, venue, BROKEN, try_number=try_number)
    finish_run(night.connection, night.leases, night.job, run)


def only(night: Night, *, ended: bool = True) -> DeadLetter:
    """Return the only letter."""
    (letter,) = dead_letters.find(night.connection, ended=ended)
    return letter


def states(night: Night) -> list[str]:
    """Return the states of all letters, oldest first."""
    letters = dead_letters.find(night.connection, ended=True)
    return [letter.state for letter in sorted(letters, key=lambda letter: letter.id)]


# letters of venues -------------------------------------------------------------------------


def test_a_letter_records_what_failed_where_when_and_how_often(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA, tries=3)
    letter = only(night)
    assert (letter.job, letter.kind, letter.key, letter.state) == ("diary", "unit", "", "open")
    assert (letter.unit_id, letter.tenant_id, letter.unit_name) == (
        ARENA.id,
        NORTH,
        "Arena",
    )
    assert (letter.run, letter.run_id, letter.as_of) == (run.id, "tonight", AS_OF)
    assert (letter.error_type, letter.error) == ("PermanentError", "no such seat")
    assert letter.attempts == 3
    assert letter.first_failed_at < letter.last_failed_at
    assert letter.is_open
    assert dead_letters.load(night.connection, letter.id) == letter
    assert dead_letters.payload(night.connection, letter) is None


def test_there_is_no_letter_with_an_unknown_number(night: Night) -> None:
    assert dead_letters.load(night.connection, 1) is None


def test_a_constraint_allows_one_open_letter_for_a_venue(night: Night) -> None:
    fail(night, night.plan(ARENA), ARENA)
    copy = (
        "INSERT INTO jobs.dead_letter (job, unit_id, tenant_id, unit_name, kind, key, as_of, "
        "run, error_type, error, attempts, first_failed_at, last_failed_at, state) "
        "SELECT job, unit_id, tenant_id, unit_name, kind, key, as_of, run, error_type, error, "
        "attempts, first_failed_at, last_failed_at, %s FROM jobs.dead_letter LIMIT 1"
    )
    for state in ("open", "replaying"):
        with pytest.raises(psycopg.errors.UniqueViolation, match="one_open_letter"):
            night.connection.execute(copy, [state])
    night.connection.execute(copy, ["resolved"])


def test_a_venue_that_fails_again_renews_its_letter_and_its_count(night: Night) -> None:
    fail(night, night.plan(ARENA), ARENA, tries=2)
    before = only(night)
    later = night.plan(ARENA, key=NEXT_NIGHT, as_of=AS_OF + DAY)
    night.fail(later, ARENA, TransientError("not loaded yet"))
    finish_run(night.connection, night.leases, night.job, later)
    letter = only(night)
    assert letter.id == before.id
    assert (letter.attempts, letter.error) == (3, "not loaded yet")
    assert (letter.run, letter.as_of) == (later.id, AS_OF + DAY)
    assert letter.first_failed_at == before.first_failed_at
    assert letter.last_failed_at > before.last_failed_at


def test_tries_after_a_clear_are_counted_once(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA, tries=2)
    fail(night, run, ARENA)
    assert only(night).attempts == 3


def test_a_failure_of_an_older_night_does_not_replace_the_newer_nights_letter(
    night: Night,
) -> None:
    fail(night, night.plan(ARENA), ARENA)
    fail(night, night.plan(ARENA, key=LAST_NIGHT, as_of=AS_OF - DAY), ARENA)
    assert only(night).as_of == AS_OF


def test_a_later_success_resolves_the_letter(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    night.succeed(run, ARENA)
    letter = only(night)
    assert letter.state == "resolved"
    assert letter.ended_at is not None
    assert dead_letters.find(night.connection) == []


def test_finding_the_venue_done_resolves_the_letter_too(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    night.skip(run, ARENA)
    assert states(night) == ["resolved"]


def test_a_success_of_an_older_night_does_not_resolve_the_letter(night: Night) -> None:
    fail(night, night.plan(ARENA), ARENA)
    older = night.plan(ARENA, key=LAST_NIGHT, as_of=AS_OF - DAY)
    night.succeed(older, ARENA)
    assert states(night) == ["open"]


def test_a_success_of_another_venue_does_not_resolve_the_letter(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    night.succeed(run, BALLROOM)
    fail(night, run, ARENA)
    night.succeed(run, BALLROOM)
    assert states(night) == ["open"]


def test_another_jobs_success_does_not_resolve_the_letter(night: Night) -> None:
    fail(night, night.plan(ARENA), ARENA)
    night.job = replace(night.job, name="another job")
    night.succeed(night.plan(ARENA, key=replace(TONIGHT, job="another job")), ARENA)
    assert states(night) == ["open"]


def test_a_success_that_is_rolled_back_resolves_nothing(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    attempt = night.begin(run, ARENA)
    with night.connection.transaction(force_rollback=True):
        night.end(attempt)
        assert states(night) == ["resolved"]
    assert states(night) == ["open"]


def test_a_venue_that_fails_after_its_letter_was_resolved_has_a_new_one(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    night.succeed(run, ARENA)
    fail(night, night.plan(ARENA, key=NEXT_NIGHT, as_of=AS_OF + DAY), ARENA)
    assert states(night) == ["resolved", "open"]


def test_a_job_that_keeps_every_date_has_a_letter_for_each(night: Night) -> None:
    night.job = replace(night.job, keeps_every_date=True)
    older = night.plan(ARENA, key=LAST_NIGHT, as_of=AS_OF - DAY)
    fail(night, older, ARENA)
    tonight = night.plan(ARENA)
    fail(night, tonight, ARENA)
    assert states(night) == ["open", "open"]
    night.succeed(tonight, ARENA)
    assert states(night) == ["open", "resolved"]


# replayed or discarded ---------------------------------------------------------------------


def test_a_letter_that_is_replayed_and_not_resolved_is_open_again(night: Night) -> None:
    fail(night, night.plan(ARENA), ARENA)
    letter = only(night)
    assert dead_letters.begin_replay(night.connection, letter)
    assert states(night) == ["replaying"]
    assert only(night, ended=False).is_open
    dead_letters.end_replay(night.connection, letter)
    assert states(night) == ["open"]


def test_a_replay_that_does_the_venue_resolves_the_letter(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    letter = only(night)
    dead_letters.begin_replay(night.connection, letter)
    night.succeed(run, ARENA)
    dead_letters.end_replay(night.connection, letter)
    assert states(night) == ["resolved"]


def test_a_replay_that_fails_renews_the_letter_as_open(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    dead_letters.begin_replay(night.connection, only(night))
    fail(night, run, ARENA)
    assert states(night) == ["open"]


def test_a_letter_whose_replay_was_killed_may_be_replayed_again(night: Night) -> None:
    fail(night, night.plan(ARENA), ARENA)
    assert dead_letters.begin_replay(night.connection, only(night))
    assert dead_letters.begin_replay(night.connection, only(night))


def test_a_discarded_letter_keeps_its_reason_and_name(night: Night) -> None:
    fail(night, night.plan(ARENA), ARENA)
    letter = only(night)
    assert dead_letters.discard(night.connection, letter, reason="sold to a rival", by="ada")
    discarded = only(night)
    assert (discarded.state, discarded.reason, discarded.ended_by) == (
        "discarded",
        "sold to a rival",
        "ada",
    )
    assert not discarded.is_open


def test_a_letter_that_has_ended_is_neither_discarded_nor_replayed(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    letter = only(night)
    night.succeed(run, ARENA)
    assert not dead_letters.discard(night.connection, letter, reason="too late", by="ada")
    assert not dead_letters.begin_replay(night.connection, letter)
    dead_letters.end_replay(night.connection, letter)
    assert states(night) == ["resolved"]


def test_a_success_does_not_resolve_a_discarded_letter(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    dead_letters.discard(night.connection, only(night), reason="sold", by="ada")
    night.succeed(run, ARENA)
    assert states(night) == ["discarded"]


@pytest.mark.parametrize(("reason", "by"), [(None, "ada"), ("sold", None)])
def test_discarding_without_reason_or_name_is_refused(night: Night, reason: Any, by: Any) -> None:
    fail(night, night.plan(ARENA), ARENA)
    with pytest.raises(psycopg.errors.CheckViolation, match="with_reason_and_name"):
        dead_letters.discard(night.connection, only(night), reason=reason, by=by)


def test_letters_of_one_run_are_replayed_together_the_older_nights_first(night: Night) -> None:
    fail(night, night.plan(ARENA, BALLROOM), ARENA, BALLROOM)
    older = night.plan(replace(ARENA, id=SOUTH), key=LAST_NIGHT, as_of=AS_OF - DAY)
    fail(night, older, replace(ARENA, id=SOUTH))
    runs = dead_letters.by_run(dead_letters.find(night.connection))
    assert [[letter.run_id for letter in together] for together in runs] == [
        ["last night"],
        ["tonight", "tonight"],
    ]


# letters of items --------------------------------------------------------------------------


class Till:
    """A job that counts a venue's sales, sets aside those that it cannot read, and publishes."""

    def __init__(self, night: Night, publish: Step = lambda _: UnitResult()) -> None:
        self.night = night
        self.bad: dict[str, Exception] = {}
        self.counted = 0
        steps = {"count": self._count, "publish": publish}
        self.job: Job[VenueSettings] = replace(night.job, steps=steps)

    def run(self, run: PlannedRun, *, try_number: int = 1) -> list[UnitFailure]:
        """Process the only batch."""
        (batch,) = history.load_batches(self.night.connection, run)
        batch_try = BatchTry.of(self.job, run, batch, try_number=try_number)
        return process_batch(self.night.database.jobs, self.night.leases, self.job, batch_try)

    def _count(self, run: UnitRun[VenueSettings]) -> None:
        for key, error in self.bad.items():
            run.set_aside(key, {"email": f"{key}@example.org"}, error)
        self.counted += 1


def at(night: Night, key: str, day: int, *venues: Unit) -> PlannedRun:
    """Plan a night that many days after the first."""
    return night.plan(*venues, key=replace(TONIGHT, run_id=key), as_of=AS_OF + day * DAY)


def test_an_item_that_cannot_be_processed_is_set_aside_and_the_venue_goes_on(
    night: Night,
) -> None:
    till, run = Till(night), night.plan(ARENA)
    till.bad["sale 7"] = ValueError("no such seat")
    assert till.run(run) == []
    assert night.attempts(run)[ARENA.id].outcome == "succeeded"
    letter = only(night)
    assert (letter.kind, letter.key, letter.state) == ("item", "sale 7", "open")
    assert (letter.error_type, letter.error) == ("ValueError", "ValueError: no such seat")
    assert letter.attempts == 1
    assert dead_letters.payload(night.connection, letter) == {"email": "sale 7@example.org"}


def test_a_payload_is_read_under_its_tenant_alone(night: Night) -> None:
    till = Till(night)
    till.bad["sale 7"] = ValueError("no such seat")
    till.run(night.plan(ARENA))
    letter = only(night)
    assert dead_letters.payload(night.connection, replace(letter, tenant_id=SOUTH)) is None
    with pytest.raises(psycopg.Error):
        night.connection.execute("SELECT payload FROM jobs.dead_letter_payload")


def test_the_list_of_letters_shows_no_payload(night: Night) -> None:
    till = Till(night)
    till.bad["sale 7"] = ValueError("no such seat")
    till.run(night.plan(ARENA))
    assert "@example.org" not in repr(only(night))


def test_an_item_that_is_set_aside_again_renews_its_letter(night: Night) -> None:
    till = Till(night)
    till.bad["sale 7"] = ValueError("no such seat")
    till.run(night.plan(ARENA))
    before = only(night)
    till.bad["sale 7"] = ValueError("no such row")
    till.run(at(night, "next night", 1, ARENA))
    letter = only(night)
    assert (letter.id, letter.attempts, letter.state) == (before.id, 2, "open")
    assert letter.error == "ValueError: no such row"


def test_an_item_that_is_not_set_aside_again_is_resolved_by_its_venues_success(
    night: Night,
) -> None:
    till = Till(night)
    till.bad = {"sale 7": ValueError("no such seat"), "sale 8": ValueError("no such seat")}
    till.run(night.plan(ARENA))
    del till.bad["sale 7"]
    till.run(at(night, "next night", 1, ARENA))
    letters = dead_letters.find(night.connection, ended=True)
    assert {letter.key: letter.state for letter in letters} == {
        "sale 7": "resolved",
        "sale 8": "open",
    }


def test_an_item_is_not_resolved_by_an_older_nights_success(night: Night) -> None:
    till = Till(night)
    till.bad["sale 7"] = ValueError("no such seat")
    till.run(night.plan(ARENA))
    till.bad.clear()
    forced = replace(at(night, "last night", -1, ARENA), force=True)
    assert till.run(forced) == []
    assert till.counted == 2
    assert states(night) == ["open"]


def test_an_item_is_not_resolved_by_an_attempt_that_was_skipped(night: Night) -> None:
    till, run = Till(night), night.plan(ARENA)
    till.bad["sale 7"] = ValueError("no such seat")
    till.run(run)
    night.skip(at(night, "next night", 1, ARENA), ARENA)
    assert states(night) == ["open"]


def test_an_item_set_aside_by_an_earlier_try_is_not_resolved_by_the_try_that_resumes(
    night: Night,
) -> None:
    faults: list[Exception] = [TransientError("not yet")]

    def publish(_: UnitRun[VenueSettings]) -> UnitResult:
        if faults:
            raise faults.pop()
        return UnitResult()

    till, run = Till(night, publish), night.plan(ARENA)
    till.bad["sale 7"] = ValueError("no such seat")
    assert len(till.run(run)) == 1
    assert till.run(run, try_number=2) == []
    assert till.counted == 1
    assert states(night) == ["open"]


def test_an_item_set_aside_in_a_step_that_failed_has_no_letter(night: Night) -> None:
    run = night.plan(ARENA)

    def set_aside_and_fail(run: UnitRun[VenueSettings]) -> UnitResult:
        run.set_aside("sale 7", {}, ValueError("no such seat"))
        raise TransientError("not yet")

    till = Till(night)
    till.job = replace(till.job, steps={"publish": set_aside_and_fail})
    assert len(till.run(run)) == 1
    assert states(night) == []


def test_an_item_and_its_venue_have_separate_letters(night: Night) -> None:
    till, run = Till(night), night.plan(ARENA)
    till.bad["sale 7"] = ValueError("no such seat")
    till.run(run)
    fail(night, at(night, "next night", 1, ARENA), ARENA)
    kinds = {letter.kind for letter in dead_letters.find(night.connection)}
    assert kinds == {"item", "unit"}


# letters of messages -----------------------------------------------------------------------


def test_a_message_has_a_letter_without_a_unit(night: Night) -> None:
    run = night.plan(ARENA)
    dead_letters.write_message(night.connection, run, "event 7", ValueError("no JSON"))
    letter = only(night, ended=False)
    assert (letter.kind, letter.key, letter.state) == ("message", "event 7", "open")
    assert (letter.unit_id, letter.tenant_id, letter.unit_name) == (None, None, None)
    assert (letter.run_id, letter.as_of, letter.attempts) == ("tonight", AS_OF, 1)
    assert (letter.error_type, letter.error) == ("ValueError", "ValueError: no JSON")
    assert dead_letters.load(night.connection, letter.id) == letter
    assert dead_letters.payload(night.connection, letter) is None


def test_a_message_has_one_open_letter_for_each_key_of_a_job(night: Night) -> None:
    tonight, next_night = night.plan(), night.plan(key=NEXT_NIGHT, as_of=AS_OF + DAY)
    others = night.plan(key=replace(TONIGHT, job="another job"))
    for run in (tonight, next_night):
        dead_letters.write_message(night.connection, run, "event 7", ValueError(run.run_id))
    dead_letters.write_message(night.connection, tonight, "event 8", ValueError("no JSON"))
    dead_letters.write_message(night.connection, others, "event 7", ValueError("no JSON"))
    found = {
        (letter.job, letter.key): (letter.run_id, letter.error, letter.attempts)
        for letter in dead_letters.find(night.connection)
    }
    assert found == {
        ("diary", "event 7"): ("next night", "ValueError: next night", 2),
        ("diary", "event 8"): ("tonight", "ValueError: no JSON", 1),
        ("another job", "event 7"): ("tonight", "ValueError: no JSON", 1),
    }
    with pytest.raises(psycopg.errors.UniqueViolation):
        night.connection.execute(
            "INSERT INTO jobs.dead_letter (job, kind, key, as_of, run, error_type, error, "
            "attempts, first_failed_at, last_failed_at) "
            "SELECT job, kind, key, as_of, run, error_type, error, attempts, first_failed_at, "
            "last_failed_at FROM jobs.dead_letter WHERE key = 'event 8'"
        )


def test_a_message_can_be_discarded_but_no_units_success_resolves_it(night: Night) -> None:
    run = night.plan(ARENA)
    dead_letters.write_message(night.connection, run, "", ValueError("no JSON"))
    fail(night, run, ARENA)
    night.succeed(night.plan(ARENA, key=NEXT_NIGHT, as_of=AS_OF + DAY), ARENA)
    assert states(night) == ["open", "resolved"]
    letter = only(night, ended=False)
    assert dead_letters.discard(night.connection, letter, reason="a test event", by="ada")
    assert states(night) == ["discarded", "resolved"]
    # the next message with that key has a new letter
    dead_letters.write_message(night.connection, run, "", ValueError("no JSON"))
    assert states(night) == ["discarded", "resolved", "open"]


@pytest.mark.parametrize(("kind", "unit_id"), [("message", ARENA.id), ("unit", None)])
def test_only_messages_have_no_unit(night: Night, kind: str, unit_id: UUID | None) -> None:
    dead_letters.write_message(night.connection, night.plan(), "event 7", ValueError("no JSON"))
    with pytest.raises(psycopg.errors.CheckViolation):
        night.connection.execute(
            "UPDATE jobs.dead_letter SET kind = %s, unit_id = %s", [kind, unit_id]
        )


# letters of all kinds ----------------------------------------------------------------------


def test_letters_are_listed_with_the_latest_failure_first(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    fail(night, run, BALLROOM)
    night.fail(run, ARENA, BROKEN)
    finish_run(night.connection, night.leases, night.job, run)
    listed = dead_letters.find(night.connection, job="diary")
    assert [letter.unit_name for letter in listed] == ["Arena", "Ballroom"]
    moments: list[datetime] = [letter.last_failed_at for letter in listed]
    assert moments == sorted(moments, reverse=True)
    assert dead_letters.find(night.connection, job="another job") == []
