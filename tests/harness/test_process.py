"""Process: one venue's failure stops no other, and a retry does only what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import LiteralString
from uuid import UUID

import psycopg
import pytest
from tests.conftest import Database
from tests.harness.simple_venues import ARENA, BALLROOM, NORTH, SOUTH

from venue_analytics.harness import (
    Job,
    JobSettings,
    PermanentError,
    TransientError,
    Venue,
    VenueResult,
    VenueRun,
    history,
)
from venue_analytics.harness.batches import pack
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.process import VenueFailure, process_batch

AS_OF = datetime(2026, 3, 1, 2, tzinfo=UTC)
TENANT = "SELECT current_setting('app.current_tenant_id')"
Fault = Callable[[psycopg.Connection], object]


@dataclass
class Diary:
    """A job that notes what it is asked, does nothing else, and fails where it is told to."""

    database: Database
    run: PlannedRun
    venues: tuple[Venue, ...]
    faults: dict[UUID, Fault] = field(default_factory=dict)
    entries: list[tuple[str, str]] = field(default_factory=list)

    def batch(self) -> list[VenueFailure]:
        """Do the one batch."""
        job = Job("diary", JobSettings, self._process, self._remove, lambda *_: [])
        (batch,) = pack(self.venues, max_tasks=1)
        return process_batch(self.database.jobs, job, self.run, batch, JobSettings())

    def outcomes(self) -> dict[str, str]:
        """How the last attempt at each venue ended."""
        with self.database.jobs() as connection:
            attempts = history.last_attempts(connection, self.run)
        return {attempt.venue_name: attempt.outcome for attempt in attempts.values()}

    def _process(self, run: VenueRun[JobSettings]) -> VenueResult:
        (tenant,) = run.connection.execute(TENANT).fetchone() or (None,)
        assert tenant == str(run.venue.tenant_id)
        self.entries.append(("process", run.venue.name))
        if fault := self.faults.get(run.venue.venue_id):
            fault(run.connection)
        return VenueResult(rows_written=1)

    def _remove(self, connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
        assert connection.execute(TENANT).fetchone() == (str(tenant_id),)
        self.entries.append(("remove", f"{venue_id} of {tenant_id}"))
        return 5


@pytest.fixture
def new_diary(simple: Database) -> Callable[..., Diary]:
    def make(*venues: Venue) -> Diary:
        with simple.jobs() as connection:
            run = history.store_plan(
                connection,
                RunKey(UUID(int=1), "diary", "a night"),
                as_of=AS_OF,
                force=False,
                settings={},
                source_faults=[],
                batches=pack(venues, max_tasks=1),
            )
        return Diary(simple, run, venues)

    return make


@pytest.fixture
def diary(new_diary: Callable[..., Diary]) -> Diary:
    return new_diary(ARENA, BALLROOM)


def fail(error: Exception) -> Fault:
    def raise_it(_: psycopg.Connection) -> None:
        raise error

    return raise_it


def test_every_venue_of_a_batch_is_done_under_its_tenant(diary: Diary) -> None:
    assert diary.batch() == []
    assert diary.entries == [("process", "Arena"), ("process", "Ballroom")]
    assert diary.outcomes() == {"Arena": "succeeded", "Ballroom": "succeeded"}


def test_one_venues_failure_does_not_stop_another(diary: Diary) -> None:
    diary.faults[ARENA.venue_id] = fail(ValueError("no such seat"))
    (failure,) = diary.batch()
    assert str(failure) == "Arena: ValueError: no such seat"
    assert diary.outcomes() == {"Arena": "failed", "Ballroom": "succeeded"}


def test_a_retry_does_only_the_venues_that_failed(diary: Diary) -> None:
    diary.faults[ARENA.venue_id] = fail(ValueError("no such seat"))
    diary.batch()
    diary.faults.clear()
    diary.entries.clear()
    assert diary.batch() == []
    assert diary.entries == [("process", "Arena")]
    assert diary.outcomes() == {"Arena": "succeeded", "Ballroom": "succeeded"}


def test_a_batch_that_is_wholly_done_is_done_again(diary: Diary) -> None:
    diary.batch()
    diary.entries.clear()
    assert diary.batch() == []
    assert diary.entries == [("process", "Arena"), ("process", "Ballroom")]


def test_a_connection_that_breaks_costs_one_venue(diary: Diary) -> None:
    diary.faults[ARENA.venue_id] = lambda connection: connection.execute(
        "SELECT pg_terminate_backend(pg_backend_pid())"
    )
    (failure,) = diary.batch()
    assert failure.venue == ARENA
    assert "AdminShutdown" in str(failure)
    assert diary.outcomes() == {"Arena": "failed", "Ballroom": "succeeded"}


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (PermanentError("this never works"), True),
        (TransientError("not yet"), False),
        (ValueError("perhaps"), False),
    ],
)
def test_a_failure_says_whether_trying_again_can_help(
    diary: Diary, error: Exception, permanent: bool
) -> None:
    diary.faults[ARENA.venue_id] = fail(error)
    (failure,) = diary.batch()
    assert failure.permanent is permanent


def test_a_database_error_is_told_without_the_rows_values(diary: Diary) -> None:
    diary.faults[ARENA.venue_id] = lambda connection: connection.execute(
        "INSERT INTO customer_segments VALUES (gen_random_uuid(), %s, 'ada@example.org')", [NORTH]
    )
    (failure,) = diary.batch()
    assert str(failure).startswith("Arena: NotNullViolation: null value in column")
    assert "ada@example.org" not in str(failure)


def test_a_venue_that_has_gone_loses_its_rows(new_diary: Callable[..., Diary]) -> None:
    diary = new_diary(replace(ARENA, gone=True))
    assert diary.batch() == []
    assert diary.entries == [("remove", f"{ARENA.venue_id} of {NORTH}")]
    with diary.database.jobs() as connection:
        attempt = history.last_attempts(connection, diary.run)[ARENA.venue_id]
    assert (attempt.reason, attempt.rows_removed) == ("venue gone: its rows removed", 5)


def test_a_venue_that_changed_hands_leaves_nothing_under_its_former_tenant(
    new_diary: Callable[..., Diary],
) -> None:
    diary = new_diary(replace(ARENA, former_tenant_id=SOUTH))
    assert diary.batch() == []
    assert diary.entries == [("remove", f"{ARENA.venue_id} of {SOUTH}"), ("process", "Arena")]


def test_nothing_is_kept_of_a_venue_whose_run_was_finished_meanwhile(
    diary: Diary, simple: Database
) -> None:
    def write_and_be_finished(connection: psycopg.Connection) -> None:
        connection.execute(
            "INSERT INTO venue_rfm_state (venue_id, tenant_id) VALUES (%s, %s)",
            [ARENA.venue_id, ARENA.tenant_id],
        )
        with simple.jobs() as other:
            finish_run(other, diary.run)

    diary.faults[ARENA.venue_id] = write_and_be_finished
    (failure,) = diary.batch()
    assert "the run was finished while this venue was at work" in str(failure)
    assert diary.outcomes()["Arena"] == "failed"
    with simple.superuser() as connection:
        assert connection.execute("SELECT count(*) FROM venue_rfm_state").fetchone() == (0,)


@pytest.mark.parametrize(
    ("query", "permanent", "words"),
    [
        ("SELECT 'ada@example.org'::uuid", True, "a value that cannot be read"),
        ("SELECT * FROM nowhere", True, 'relation "nowhere" does not exist'),
        ("SELECT 1 FROM pg_authid", True, "permission denied"),
        ("SET LOCAL statement_timeout = 10; SELECT pg_sleep(9)", False, "statement timeout"),
    ],
)
def test_the_databases_errors_are_told_in_words_and_without_values(
    diary: Diary, query: LiteralString, permanent: bool, words: str
) -> None:
    diary.faults[ARENA.venue_id] = lambda connection: connection.execute(query)
    (failure,) = diary.batch()
    assert words in str(failure)
    assert "ada@example.org" not in str(failure)
    assert failure.permanent is permanent
