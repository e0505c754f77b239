"""Dead letters: one open letter for what could not be done, until it is done or given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg
import pytest
from tests.harness.nights import AS_OF, DAY, TONIGHT, Night
from tests.harness.simple_venues import ARENA, BALLROOM, NORTH, SOUTH

from venue_analytics.harness import (
    Job,
    JobSettings,
    PermanentError,
    TransientError,
    Venue,
    VenueResult,
    VenueRun,
    dead_letters,
    history,
)
from venue_analytics.harness.dead_letters import DeadLetter
from venue_analytics.harness.failures import VenueFailure
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.process import process_batch

BROKEN = PermanentError("no such seat")
LAST_NIGHT = replace(TONIGHT, run_id="last night")
NEXT_NIGHT = replace(TONIGHT, run_id="next night")
Step = Callable[[VenueRun[JobSettings]], VenueResult | None]


def fail(night: Night, run: PlannedRun, *venues: Venue, tries: int = 1) -> None:
    """Have venues fail, and the run finished."""
    for venue in venues:
        for try_number in range(1, tries + 1):
            night.fail(run, venue, BROKEN, try_number=try_number)
    finish_run(night.connection, night.leases, night.job, run)


def only(night: Night, *, ended: bool = True) -> DeadLetter:
    """The one letter that there is."""
    (letter,) = dead_letters.find(night.connection, ended=ended)
    return letter


def states(night: Night) -> list[str]:
    """The states of all letters, the first written first."""
    letters = dead_letters.find(night.connection, ended=True)
    return [letter.state for letter in sorted(letters, key=lambda letter: letter.id)]


# of venues ---------------------------------------------------------------------------------


def test_a_letter_says_what_failed_where_when_and_how_often(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA, tries=3)
    letter = only(night)
    assert (letter.job, letter.kind, letter.key, letter.state) == ("diary", "venue", "", "open")
    assert (letter.venue_id, letter.tenant_id, letter.venue_name) == (
        ARENA.venue_id,
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


def test_there_is_no_letter_of_a_number_that_was_not_given(night: Night) -> None:
    assert dead_letters.load(night.connection, 1) is None


def test_one_open_letter_for_a_thing_is_a_constraint(night: Night) -> None:
    fail(night, night.plan(ARENA), ARENA)
    copy = (
        "INSERT INTO jobs.dead_letter (job, venue_id, tenant_id, venue_name, kind, key, as_of, "
        "run, error_type, error, attempts, first_failed_at, last_failed_at, state) "
        "SELECT job, venue_id, tenant_id, venue_name, kind, key, as_of, run, error_type, error, "
        "attempts, first_failed_at, last_failed_at, %s FROM jobs.dead_letter LIMIT 1"
    )
    for state in ("open", "replaying"):
        with pytest.raises(psycopg.errors.UniqueViolation, match="one_open_letter"):
            night.connection.execute(copy, [state])
    night.connection.execute(copy, ["resolved"])


def test_a_venue_that_fails_again_renews_its_letter_and_counts(night: Night) -> None:
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


def test_a_failure_of_an_older_night_leaves_the_letter_that_of_the_newer_one(
    night: Night,
) -> None:
    fail(night, night.plan(ARENA), ARENA)
    fail(night, night.plan(ARENA, key=LAST_NIGHT, as_of=AS_OF - DAY), ARENA)
    assert only(night).as_of == AS_OF


def test_a_later_success_resolves_it(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    night.succeed(run, ARENA)
    letter = only(night)
    assert letter.state == "resolved"
    assert letter.ended_at is not None
    assert dead_letters.find(night.connection) == []


def test_finding_the_venue_done_resolves_it_too(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    night.skip(run, ARENA)
    assert states(night) == ["resolved"]


def test_a_success_of_an_older_night_does_not(night: Night) -> None:
    fail(night, night.plan(ARENA), ARENA)
    older = night.plan(ARENA, key=LAST_NIGHT, as_of=AS_OF - DAY)
    night.succeed(older, ARENA)
    assert states(night) == ["open"]


def test_a_success_of_another_venue_does_not(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    night.succeed(run, BALLROOM)
    fail(night, run, ARENA)
    night.succeed(run, BALLROOM)
    assert states(night) == ["open"]


def test_another_jobs_success_does_not(night: Night) -> None:
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


def test_a_venue_that_fails_once_more_after_that_has_a_new_letter(night: Night) -> None:
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


# replayed and discarded --------------------------------------------------------------------


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


def test_what_has_ended_is_neither_discarded_nor_replayed(night: Night) -> None:
    run = night.plan(ARENA)
    fail(night, run, ARENA)
    letter = only(night)
    night.succeed(run, ARENA)
    assert not dead_letters.discard(night.connection, letter, reason="too late", by="ada")
    assert not dead_letters.begin_replay(night.connection, letter)
    dead_letters.end_replay(night.connection, letter)
    assert states(night) == ["resolved"]


def test_a_success_does_not_resolve_what_was_discarded(night: Night) -> None:
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
    older = night.plan(replace(ARENA, venue_id=SOUTH), key=LAST_NIGHT, as_of=AS_OF - DAY)
    fail(night, older, replace(ARENA, venue_id=SOUTH))
    runs = dead_letters.by_run(dead_letters.find(night.connection))
    assert [[letter.run_id for letter in together] for together in runs] == [
        ["last night"],
        ["tonight", "tonight"],
    ]


# of items ----------------------------------------------------------------------------------


class Till:
    """A job that counts a venue's sales, sets those aside that it cannot read, and publishes."""

    def __init__(self, night: Night, publish: Step = lambda _: VenueResult()) -> None:
        self.night = night
        self.bad: dict[str, Exception] = {}
        self.counted = 0
        self.job: Job[JobSettings] = replace(night.job, steps=(self._count, publish))

    def run(self, run: PlannedRun, *, try_number: int = 1) -> list[VenueFailure]:
        """Do the one batch."""
        (batch,) = history.load_batches(self.night.connection, run)
        return process_batch(
            self.night.database.jobs,
            self.night.leases,
            self.job,
            run,
            batch,
            JobSettings(),
            try_number=try_number,
        )

    def _count(self, run: VenueRun[JobSettings]) -> None:
        for key, error in self.bad.items():
            run.set_aside(key, {"email": f"{key}@example.org"}, error)
        self.counted += 1


def at(night: Night, key: str, day: int, *venues: Venue) -> PlannedRun:
    """Plan a night some days after the first."""
    return night.plan(*venues, key=replace(TONIGHT, run_id=key), as_of=AS_OF + day * DAY)


def test_an_item_that_cannot_be_processed_is_set_aside_and_the_venue_goes_on(
    night: Night,
) -> None:
    till, run = Till(night), night.plan(ARENA)
    till.bad["sale 7"] = ValueError("no such seat")
    assert till.run(run) == []
    assert night.attempts(run)[ARENA.venue_id].outcome == "succeeded"
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


def test_an_item_is_not_resolved_where_nobody_looked_at_it(night: Night) -> None:
    till, run = Till(night), night.plan(ARENA)
    till.bad["sale 7"] = ValueError("no such seat")
    till.run(run)
    night.skip(at(night, "next night", 1, ARENA), ARENA)
    assert states(night) == ["open"]


def test_an_item_that_an_earlier_try_set_aside_is_not_resolved_by_the_try_that_resumes(
    night: Night,
) -> None:
    faults: list[Exception] = [TransientError("not yet")]

    def publish(_: VenueRun[JobSettings]) -> VenueResult:
        if faults:
            raise faults.pop()
        return VenueResult()

    till, run = Till(night, publish), night.plan(ARENA)
    till.bad["sale 7"] = ValueError("no such seat")
    assert len(till.run(run)) == 1
    assert till.run(run, try_number=2) == []
    assert till.counted == 1
    assert states(night) == ["open"]


def test_what_was_set_aside_in_a_step_that_failed_is_not_kept(night: Night) -> None:
    run = night.plan(ARENA)

    def set_aside_and_fail(run: VenueRun[JobSettings]) -> VenueResult:
        run.set_aside("sale 7", {}, ValueError("no such seat"))
        raise TransientError("not yet")

    till = Till(night)
    till.job = replace(till.job, steps=(set_aside_and_fail,))
    assert len(till.run(run)) == 1
    assert states(night) == []


def test_an_item_and_its_venue_have_letters_of_their_own(night: Night) -> None:
    till, run = Till(night), night.plan(ARENA)
    till.bad["sale 7"] = ValueError("no such seat")
    till.run(run)
    fail(night, at(night, "next night", 1, ARENA), ARENA)
    kinds = {letter.kind for letter in dead_letters.find(night.connection)}
    assert kinds == {"item", "venue"}


def test_the_letters_are_listed_the_last_failed_first(night: Night) -> None:
    run = night.plan(ARENA, BALLROOM)
    fail(night, run, BALLROOM)
    night.fail(run, ARENA, BROKEN)
    finish_run(night.connection, night.leases, night.job, run)
    listed = dead_letters.find(night.connection, job="diary")
    assert [letter.venue_name for letter in listed] == ["Arena", "Ballroom"]
    moments: list[datetime] = [letter.last_failed_at for letter in listed]
    assert moments == sorted(moments, reverse=True)
    assert dead_letters.find(night.connection, job="another job") == []
