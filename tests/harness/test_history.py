"""History: a later plan replaces an earlier one, and only its own attempts count."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
from tests.conftest import Database
from tests.harness.simple_venues import ARENA, BALLROOM, CELLAR, DOME

from venue_analytics.harness import Outcome, Venue, VenueResult, history
from venue_analytics.harness.batches import pack
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

KEY = RunKey(UUID(int=1), "rfm_scoring", "scheduled__2026-03-01")
AS_OF = datetime(2026, 3, 1, 2, tzinfo=UTC)


@pytest.fixture
def connection(simple: Database) -> Iterator[psycopg.Connection]:
    with simple.jobs() as connection:
        yield connection


def plan(
    connection: psycopg.Connection, *venues: Venue, key: RunKey = KEY, max_tasks: int = 10
) -> PlannedRun:
    return history.store_plan(
        connection,
        key,
        as_of=AS_OF,
        force=False,
        settings={"retries": 3},
        source_faults=["a venue has no tenant"],
        batches=pack(venues, max_tasks=max_tasks),
    )


def begin(connection: psycopg.Connection, run: PlannedRun, venue: Venue, batch: int = 0) -> int:
    return history.open_venue_run(connection, run, batch, venue, RfmScoringSettings())


def attempt(
    connection: psycopg.Connection,
    run: PlannedRun,
    venue: Venue,
    outcome: Outcome = Outcome.SUCCEEDED,
    error: str | None = None,
) -> None:
    opened = begin(connection, run, venue)
    history.close_venue_run(connection, opened, VenueResult(outcome), error)


def test_a_plan_is_read_as_it_was_stored(connection: psycopg.Connection) -> None:
    stored = plan(connection, ARENA, CELLAR)
    assert history.load_run(connection, KEY) == stored
    assert stored.as_of == AS_OF
    assert stored.outcome == "planned"
    assert stored.source_faults == ["a venue has no tenant"]


def test_batches_are_read_as_they_were_packed(connection: psycopg.Connection) -> None:
    moved = Venue(
        ARENA.venue_id, ARENA.tenant_id, "Arena", "Asia/Tokyo", "JPY", True, CELLAR.tenant_id
    )
    run = plan(connection, moved, BALLROOM, CELLAR)
    assert history.load_batches(connection, run) == pack([moved, BALLROOM, CELLAR], max_tasks=10)
    assert history.load_batches(connection, run, 0) == pack([moved], max_tasks=1)


def test_a_run_that_was_never_planned_is_none(connection: psycopg.Connection) -> None:
    plan(connection, ARENA)
    other = RunKey(UUID(int=2), KEY.job, KEY.run_id)
    assert history.load_run(connection, other) is None
    assert history.load_latest_run(connection, KEY.job, "no such run") is None


def test_two_deployments_have_runs_of_their_own_for_the_same_night(
    connection: psycopg.Connection,
) -> None:
    ours = plan(connection, ARENA)
    theirs = plan(connection, CELLAR, key=RunKey(UUID(int=2), KEY.job, KEY.run_id))
    assert theirs.id != ours.id
    assert [batch.label for batch in history.load_batches(connection, ours)] == ["Arena"]


def test_the_latest_run_is_the_one_planned_last(connection: psycopg.Connection) -> None:
    plan(connection, ARENA, key=RunKey(UUID(int=2), KEY.job, "earlier"))
    last = plan(connection, CELLAR)
    assert history.load_latest_run(connection, KEY.job) == last


def test_a_later_plan_of_a_run_replaces_its_batches(connection: psycopg.Connection) -> None:
    first = plan(connection, ARENA, BALLROOM, CELLAR)
    second = plan(connection, DOME)
    assert second.id == first.id
    assert second.plan_number > first.plan_number
    assert [batch.label for batch in history.load_batches(connection, second)] == ["Dome"]


def test_attempts_of_an_earlier_plan_do_not_count(connection: psycopg.Connection) -> None:
    first = plan(connection, ARENA, BALLROOM)
    attempt(connection, first, ARENA)
    second = plan(connection, ARENA, BALLROOM)
    assert history.last_attempts(connection, second) == {}
    attempt(connection, second, BALLROOM)
    assert set(history.last_attempts(connection, second)) == {BALLROOM.venue_id}


def test_the_last_attempt_at_a_venue_counts(connection: psycopg.Connection) -> None:
    run = plan(connection, ARENA)
    attempt(connection, run, ARENA, Outcome.FAILED, "the first try")
    attempt(connection, run, ARENA)
    last = history.last_attempts(connection, run)[ARENA.venue_id]
    assert last.outcome == "succeeded"
    assert last.ended_well
    assert last.error is None


def test_an_attempt_that_has_ended_is_not_ended_again(connection: psycopg.Connection) -> None:
    run = plan(connection, ARENA)
    opened = begin(connection, run, ARENA)
    history.close_venue_run(connection, opened, VenueResult(rows_written=7))
    history.close_venue_run(connection, opened, VenueResult(Outcome.FAILED), "too late")
    last = history.last_attempts(connection, run)[ARENA.venue_id]
    assert (last.outcome, last.rows_written, last.error) == ("succeeded", 7, None)


def test_finish_of_a_good_run_finds_nothing_amiss(connection: psycopg.Connection) -> None:
    run = plan(connection, ARENA, BALLROOM)
    attempt(connection, run, ARENA)
    attempt(connection, run, BALLROOM, Outcome.SKIPPED)
    assert finish_run(connection, run) == []
    ended = history.load_run(connection, KEY)
    assert ended is not None
    assert ended.outcome == "succeeded"


def test_finish_of_a_run_without_venues_finds_nothing_amiss(
    connection: psycopg.Connection,
) -> None:
    assert finish_run(connection, plan(connection)) == []


def test_finish_names_a_failed_venue_with_its_error(connection: psycopg.Connection) -> None:
    run = plan(connection, ARENA, BALLROOM)
    attempt(connection, run, ARENA)
    attempt(connection, run, BALLROOM, Outcome.FAILED, "the disk is full")
    assert finish_run(connection, run, failed_batches={1}) == ["Ballroom: the disk is full"]
    ended = history.load_run(connection, KEY)
    assert ended is not None
    assert ended.outcome == "failed"


def test_finish_names_the_venues_of_a_batch_that_never_began(
    connection: psycopg.Connection,
) -> None:
    run = plan(connection, ARENA, BALLROOM)
    attempt(connection, run, ARENA)
    assert finish_run(connection, run) == ["Ballroom: its task never began"]


def test_finish_names_a_failed_batch_whose_venues_are_done(
    connection: psycopg.Connection,
) -> None:
    run = plan(connection, ARENA, BALLROOM)
    attempt(connection, run, ARENA)
    attempt(connection, run, BALLROOM)
    assert finish_run(connection, run, failed_batches={1}) == [
        "Ballroom: its task failed, though its venues are done"
    ]


def test_finish_closes_what_a_killed_process_left_open(connection: psycopg.Connection) -> None:
    run = plan(connection, ARENA)
    other = plan(connection, ARENA, key=RunKey(UUID(int=2), KEY.job, "another run"))
    begin(connection, run, ARENA)
    begin(connection, other, ARENA)
    (line,) = finish_run(connection, run)
    assert line == "Arena: its process was killed, or ran past its timeout"
    assert history.last_attempts(connection, run)[ARENA.venue_id].outcome == "failed"
    assert history.last_attempts(connection, other)[ARENA.venue_id].outcome == "running"


def test_finish_after_a_clear_counts_what_the_new_try_did(
    connection: psycopg.Connection,
) -> None:
    run = plan(connection, ARENA)
    attempt(connection, run, ARENA, Outcome.FAILED, "the disk is full")
    assert finish_run(connection, run) != []
    attempt(connection, run, ARENA)
    assert finish_run(connection, run) == []
    ended = history.load_run(connection, KEY)
    assert ended is not None
    assert ended.outcome == "succeeded"
