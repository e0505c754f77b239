"""Process: one venue's failure stops no other, and a retry does only what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.databases import Database
from tests.harness.simple_venues import ARENA, BALLROOM, NORTH, SOUTH

from venue_analytics.database.statements import statement
from venue_analytics.harness import (
    Again,
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
from venue_analytics.harness.failures import VenueFailure
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.leases import Holder, Leases
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.request import RunRequest

AS_OF = datetime(2026, 3, 1, 2, tzinfo=UTC)
TENANT = "SELECT current_setting('app.current_tenant_id')"
Fault = Callable[[psycopg.Connection], object]


@dataclass
class Diary:
    """A job that notes what it is asked, does nothing else, and fails where it is told to."""

    database: Database
    leases: Leases
    run: PlannedRun
    venues: tuple[Venue, ...]
    faults: dict[UUID, Fault] = field(default_factory=dict)
    entries: list[tuple[str, str]] = field(default_factory=list)

    @property
    def job(self) -> Job[JobSettings]:
        """Itself, as the harness takes it."""
        return Job("diary", JobSettings, (self._process,), self._remove, lambda *_: [])

    def batch(self, **options: Any) -> list[VenueFailure]:
        """Do the one batch."""
        (batch,) = pack(self.venues, max_tasks=1)
        return process_batch(
            self.database.jobs, self.leases, self.job, self.run, batch, JobSettings(), **options
        )

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
def new_diary(simple: Database, redis_client: redis.Redis) -> Callable[..., Diary]:
    def make(*venues: Venue) -> Diary:
        key = RunKey(UUID(int=1), "diary", "a night")
        with simple.jobs() as connection:
            history.store_plan(
                connection,
                key,
                plan_try=1,
                as_of=AS_OF,
                request=RunRequest(),
                settings={},
                source_faults=[],
                left_behind=[],
                batches=pack(venues, max_tasks=1),
            )
            run = history.load_run(connection, key)
        assert run is not None
        return Diary(simple, Leases(redis_client, "diary"), run, venues)

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


def test_a_batch_that_ended_well_is_done_again_only_once_somebody_has_cleared_it(
    diary: Diary,
) -> None:
    diary.batch()
    diary.entries.clear()
    # a worker killed after noting the good end, before Airflow knew of it
    assert diary.batch(try_number=2) == []
    assert diary.entries == []
    assert diary.batch(try_number=3, clear_number=1) == []
    assert diary.entries == [("process", "Arena"), ("process", "Ballroom")]


def test_a_clear_of_a_batch_that_failed_does_only_what_it_lacks(diary: Diary) -> None:
    diary.faults[ARENA.venue_id] = fail(TransientError("not yet"))
    diary.batch()
    diary.faults.clear()
    diary.entries.clear()
    assert diary.batch(try_number=2, clear_number=1) == []
    assert diary.entries == [("process", "Arena")]


def test_what_failed_for_good_is_tried_again_only_once_somebody_has_cleared_it(
    diary: Diary,
) -> None:
    diary.faults[ARENA.venue_id] = fail(PermanentError("no such seat"))
    diary.faults[BALLROOM.venue_id] = fail(TransientError("not yet"))
    diary.batch()
    diary.faults.clear()
    diary.entries.clear()
    (failure,) = diary.batch(try_number=2)
    assert (str(failure), failure.permanent) == ("Arena: no such seat", True)
    assert diary.entries == [("process", "Ballroom")]
    assert diary.batch(try_number=3, clear_number=1) == []
    assert diary.entries == [("process", "Ballroom"), ("process", "Arena")]


def test_leases_are_given_back_whatever_happens(diary: Diary) -> None:
    diary.faults[ARENA.venue_id] = fail(ValueError("no such seat"))
    diary.batch()
    assert [diary.leases.holder(venue.venue_id) for venue in diary.venues] == [None, None]


def test_each_venue_is_worked_on_in_a_context_of_its_own_and_told_when_it_ends(
    diary: Diary,
) -> None:
    diary.faults[BALLROOM.venue_id] = fail(TransientError("not yet"))

    @contextmanager
    def around(label: str) -> Iterator[None]:
        diary.entries.append(("open", label))
        yield
        diary.entries.append(("close", label))

    diary.batch(around=around, on_venue=lambda v, told: diary.entries.append((told, v.name)))
    assert diary.entries == [
        ("open", "Arena"),
        ("process", "Arena"),
        ("succeeded: 0 rows read, 1 written, 0 unchanged, 0 removed", "Arena"),
        ("close", "Arena"),
        ("open", "Ballroom"),
        ("process", "Ballroom"),
        ("failed: not yet", "Ballroom"),
        ("close", "Ballroom"),
    ]


def test_a_venue_that_somebody_else_is_at_is_waited_for_after_the_others(diary: Diary) -> None:
    other = Holder(UUID(int=2), "their night", 0, 1, AS_OF, JobSettings().rules_hash(), uuid4())
    diary.leases.take({ARENA.venue_id: other})
    # it ends while Ballroom is done
    diary.faults[BALLROOM.venue_id] = lambda _: diary.leases.release({ARENA.venue_id: other})
    assert diary.batch() == []
    assert diary.entries == [("process", "Ballroom"), ("process", "Arena")]


def test_a_venue_whose_holder_never_ends_fails_and_may_be_tried_again(diary: Diary) -> None:
    other = Holder(UUID(int=2), "their night", 0, 1, AS_OF, JobSettings().rules_hash(), uuid4())
    diary.leases.take({ARENA.venue_id: other})
    (failure,) = diary.batch(wait_at_most=timedelta(milliseconds=1))
    assert "its lease is held by run their night, try 1 of batch 0: waited" in str(failure)
    assert not failure.permanent
    assert diary.outcomes() == {"Arena": "failed", "Ballroom": "succeeded"}
    assert diary.leases.holder(ARENA.venue_id) == other


def test_nothing_is_processed_while_redis_cannot_be_asked(new_diary: Callable[..., Diary]) -> None:
    diary = new_diary(ARENA, BALLROOM)
    nobody = redis.Redis(unix_socket_path="/nowhere", retry=Retry(NoBackoff(), 0))
    diary.leases = Leases(nobody, "diary")
    failures = diary.batch()
    assert diary.entries == []
    assert ["Redis cannot be asked" in str(failure) for failure in failures] == [True, True]
    assert not any(failure.permanent for failure in failures)
    assert diary.outcomes() == {"Arena": "failed", "Ballroom": "failed"}


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (VenueResult(), VenueResult(), "step 1 of 2 of diary gave VenueResult"),
        (None, None, "step 2 of 2 of diary gave NoneType"),
    ],
)
def test_only_the_last_step_gives_the_result(
    new_diary: Callable[..., Diary], first: VenueResult | None, last: VenueResult | None, words: str
) -> None:
    diary = new_diary(ARENA)
    steps = (lambda _: first, lambda _: last)
    job = replace(diary.job, steps=steps)
    (batch,) = pack(diary.venues, max_tasks=1)
    (failure,) = process_batch(
        diary.database.jobs, diary.leases, job, diary.run, batch, JobSettings()
    )
    assert words in str(failure)


def test_a_step_in_pieces_goes_on_from_its_cursor(new_diary: Callable[..., Diary]) -> None:
    diary = new_diary(ARENA)
    cursors = []

    def step(run: VenueRun[JobSettings]) -> VenueResult | Again:
        cursors.append(run.cursor)
        return Again({"page": len(cursors)}) if len(cursors) < 3 else VenueResult()

    (batch,) = pack(diary.venues, max_tasks=1)
    job = replace(diary.job, steps=(step,))
    process_batch(diary.database.jobs, diary.leases, job, diary.run, batch, JobSettings())
    assert cursors == [None, {"page": 1}, {"page": 2}]
    with diary.database.jobs() as connection:
        assert connection.execute("SELECT count(*) FROM jobs.checkpoint").fetchone() == (0,)


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


def test_nothing_is_kept_of_a_venue_whose_row_was_closed_meanwhile(
    diary: Diary, simple: Database
) -> None:
    def write_and_be_taken_for_dead(connection: psycopg.Connection) -> None:
        connection.execute(
            "INSERT INTO venue_rfm_state (venue_id, tenant_id) VALUES (%s, %s)",
            [ARENA.venue_id, ARENA.tenant_id],
        )
        with simple.superuser() as other:
            other.execute(statement("venue_analytics.harness", "close_left_running"), {"id": 1})

    diary.faults[ARENA.venue_id] = write_and_be_taken_for_dead
    (failure,) = diary.batch()
    assert "its row in history was closed by another process" in str(failure)
    assert not failure.permanent
    assert diary.outcomes()["Arena"] == "failed"
    with simple.superuser() as connection:
        assert connection.execute("SELECT count(*) FROM venue_rfm_state").fetchone() == (0,)


def test_finish_leaves_a_venue_alone_that_is_at_work(diary: Diary, simple: Database) -> None:
    lines: list[str] = []

    def be_finished(_: psycopg.Connection) -> None:
        with simple.jobs() as other:
            at_once = timedelta(0)
            lines.extend(finish_run(other, diary.leases, diary.job, diary.run, stopping=at_once))

    diary.faults[ARENA.venue_id] = be_finished
    assert diary.batch() == []
    assert lines == [
        "Arena: still at work, or its process was killed",
        "Ballroom: still at work, or its process was killed",
    ]
    assert diary.outcomes() == {"Arena": "succeeded", "Ballroom": "succeeded"}


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


class MuteError(Exception):
    """An error that fails at saying what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            ValueError("half a pair: \ud800, a NUL: \0"),
            "ValueError: half a pair: \ufffd, a NUL: \ufffd",
        ),
        (MuteError(), "MuteError"),
    ],
    ids=["unprintable", "mute"],
)
def test_an_error_that_cannot_be_told_stops_no_other_venue(
    diary: Diary, error: Exception, told: str
) -> None:
    diary.faults[ARENA.venue_id] = fail(error)
    (failure,) = diary.batch()
    assert str(failure) == f"Arena: {told}"
    assert diary.outcomes() == {"Arena": "failed", "Ballroom": "succeeded"}
