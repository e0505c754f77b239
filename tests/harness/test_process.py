"""Process: one venue's failure stops no other, and a retry does only what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.databases import Database
from tests.harness.nights import AS_OF, store_run
from tests.harness.simple_venues import ARENA, BALLROOM, NORTH, SOUTH

from venue_analytics.database.statements import statement
from venue_analytics.harness import (
    Continue,
    Job,
    PermanentError,
    TransientError,
    Unit,
    UnitResult,
    UnitRun,
    VenueSettings,
    history,
)
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.batches import pack
from venue_analytics.harness.failures import UnitFailure
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.leases import Holder, Leases
from venue_analytics.harness.process import Listener, process_batch

TENANT = "SELECT current_setting('app.current_tenant_id')"
Fault = Callable[[psycopg.Connection], object]


@dataclass
class Diary:
    """A job that records its calls, does nothing else, and fails on demand."""

    database: Database
    leases: Leases
    run: PlannedRun
    venues: tuple[Unit, ...]
    faults: dict[UUID, Fault] = field(default_factory=dict)
    entries: list[tuple[str, str]] = field(default_factory=list)

    @property
    def job(self) -> Job[VenueSettings]:
        """Return the job that the harness runs."""
        steps = {"process": self._process}
        return Job("diary", VenueSettings, steps, self._remove, lambda *_: [])

    def batch(
        self,
        job: Job[VenueSettings] | None = None,
        *,
        try_number: int = 1,
        clear_number: int = 0,
        **options: Any,
    ) -> list[UnitFailure]:
        """Process the only batch, with this job or another of the same name."""
        job = job or self.job
        (batch,) = pack(self.venues, max_tasks=1)
        batch_try = BatchTry.of(
            job, self.run, batch, try_number=try_number, clear_number=clear_number
        )
        return process_batch(self.database.jobs, self.leases, job, batch_try, **options)

    def outcomes(self) -> dict[str, str]:
        """Return how the last attempt at each venue ended."""
        with self.database.jobs() as connection:
            attempts = history.last_attempts(connection, self.run)
        return {attempt.unit_name: attempt.outcome for attempt in attempts.values()}

    def _process(self, run: UnitRun[VenueSettings]) -> UnitResult:
        (tenant,) = run.connection.execute(TENANT).fetchone() or (None,)
        assert tenant == str(run.unit.tenant_id)
        self.entries.append(("process", run.unit.name))
        if fault := self.faults.get(run.unit.id):
            fault(run.connection)
        return UnitResult(rows_written=1)

    def _remove(self, connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
        assert connection.execute(TENANT).fetchone() == (str(tenant_id),)
        self.entries.append(("remove", f"{venue_id} of {tenant_id}"))
        return 5


@pytest.fixture
def new_diary(simple: Database, redis_client: redis.Redis) -> Callable[..., Diary]:
    def make(*venues: Unit) -> Diary:
        key = RunKey(UUID(int=1), "diary", "a night")
        with simple.jobs() as connection:
            run = store_run(connection, key, pack(venues, max_tasks=1))
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


def test_a_failed_venue_does_not_stop_the_others(diary: Diary) -> None:
    diary.faults[ARENA.id] = fail(ValueError("no such seat"))
    (failure,) = diary.batch()
    assert str(failure) == "Arena: ValueError: no such seat"
    assert diary.outcomes() == {"Arena": "failed", "Ballroom": "succeeded"}


def test_a_retry_does_only_the_venues_that_failed(diary: Diary) -> None:
    diary.faults[ARENA.id] = fail(ValueError("no such seat"))
    diary.batch()
    diary.faults.clear()
    diary.entries.clear()
    assert diary.batch() == []
    assert diary.entries == [("process", "Arena")]
    assert diary.outcomes() == {"Arena": "succeeded", "Ballroom": "succeeded"}


def test_a_batch_that_ended_well_is_done_again_only_after_a_clear(
    diary: Diary,
) -> None:
    diary.batch()
    diary.entries.clear()
    # the worker was killed after it noted the good end, before Airflow knew
    assert diary.batch(try_number=2) == []
    assert diary.entries == []
    assert diary.batch(try_number=3, clear_number=1) == []
    assert diary.entries == [("process", "Arena"), ("process", "Ballroom")]


def test_a_clear_of_a_batch_that_failed_does_only_the_venues_that_failed(diary: Diary) -> None:
    diary.faults[ARENA.id] = fail(TransientError("not yet"))
    diary.batch()
    diary.faults.clear()
    diary.entries.clear()
    assert diary.batch(try_number=2, clear_number=1) == []
    assert diary.entries == [("process", "Arena")]


def test_a_venue_that_failed_for_good_is_tried_again_only_after_a_clear(
    diary: Diary,
) -> None:
    diary.faults[ARENA.id] = fail(PermanentError("no such seat"))
    diary.faults[BALLROOM.id] = fail(TransientError("not yet"))
    diary.batch()
    diary.faults.clear()
    diary.entries.clear()
    (failure,) = diary.batch(try_number=2)
    assert (str(failure), failure.permanent) == ("Arena: no such seat", True)
    assert diary.entries == [("process", "Ballroom")]
    assert diary.batch(try_number=3, clear_number=1) == []
    assert diary.entries == [("process", "Ballroom"), ("process", "Arena")]


def test_leases_are_released_whatever_happens(diary: Diary) -> None:
    diary.faults[ARENA.id] = fail(ValueError("no such seat"))
    diary.batch()
    assert [diary.leases.holder(venue.id) for venue in diary.venues] == [None, None]


def test_the_listener_wraps_each_venue_in_a_context_and_gets_its_outcome(
    diary: Diary,
) -> None:
    diary.faults[BALLROOM.id] = fail(TransientError("not yet"))

    @contextmanager
    def around(label: str) -> Iterator[None]:
        diary.entries.append(("open", label))
        yield
        diary.entries.append(("close", label))

    def on_unit(unit: Unit, report: str) -> None:
        diary.entries.append((report, unit.name))

    diary.batch(listener=Listener(around, on_unit))
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


def test_a_venue_held_by_another_run_is_waited_for_after_the_others(diary: Diary) -> None:
    other = Holder(UUID(int=2), "their night", 0, 1, AS_OF, VenueSettings().rules_hash(), uuid4())
    diary.leases.take({ARENA.id: other})
    # the other run ends while Ballroom is processed
    diary.faults[BALLROOM.id] = lambda _: diary.leases.release({ARENA.id: other})
    assert diary.batch() == []
    assert diary.entries == [("process", "Ballroom"), ("process", "Arena")]


def test_a_venue_whose_holder_never_ends_fails_and_may_be_retried(diary: Diary) -> None:
    other = Holder(UUID(int=2), "their night", 0, 1, AS_OF, VenueSettings().rules_hash(), uuid4())
    diary.leases.take({ARENA.id: other})
    (failure,) = diary.batch(wait_at_most=timedelta(milliseconds=1))
    assert "its lease is held by run their night, try 1 of batch 0: waited" in str(failure)
    assert not failure.permanent
    assert diary.outcomes() == {"Arena": "failed", "Ballroom": "succeeded"}
    assert diary.leases.holder(ARENA.id) == other


def test_nothing_is_processed_while_redis_does_not_answer(new_diary: Callable[..., Diary]) -> None:
    diary = new_diary(ARENA, BALLROOM)
    nobody = redis.Redis(unix_socket_path="/nowhere", retry=Retry(NoBackoff(), 0))
    diary.leases = Leases(nobody, "diary")
    failures = diary.batch()
    assert diary.entries == []
    assert ["Redis does not answer" in str(failure) for failure in failures] == [True, True]
    assert not any(failure.permanent for failure in failures)
    assert diary.outcomes() == {"Arena": "failed", "Ballroom": "failed"}


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (UnitResult(), UnitResult(), "step 'first' of diary returned UnitResult"),
        (None, None, "step 'last' of diary returned NoneType"),
    ],
)
def test_only_the_last_step_returns_the_result(
    new_diary: Callable[..., Diary], first: UnitResult | None, last: UnitResult | None, words: str
) -> None:
    diary = new_diary(ARENA)
    steps = {"first": lambda _: first, "last": lambda _: last}
    (failure,) = diary.batch(replace(diary.job, steps=steps))
    assert words in str(failure)


def test_a_step_in_pieces_continues_from_its_cursor(new_diary: Callable[..., Diary]) -> None:
    diary = new_diary(ARENA)
    cursors = []

    def step(run: UnitRun[VenueSettings]) -> UnitResult | Continue:
        cursors.append(run.cursor)
        return Continue({"page": len(cursors)}) if len(cursors) < 3 else UnitResult()

    assert diary.batch(replace(diary.job, steps={"page": step})) == []
    assert cursors == [None, {"page": 1}, {"page": 2}]
    with diary.database.jobs() as connection:
        assert connection.execute("SELECT count(*) FROM jobs.checkpoint").fetchone() == (0,)


def test_a_connection_that_breaks_fails_one_venue(diary: Diary) -> None:
    diary.faults[ARENA.id] = lambda connection: connection.execute(
        "SELECT pg_terminate_backend(pg_backend_pid())"
    )
    (failure,) = diary.batch()
    assert failure.unit == ARENA
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
def test_a_failure_records_whether_a_retry_can_help(
    diary: Diary, error: Exception, permanent: bool
) -> None:
    diary.faults[ARENA.id] = fail(error)
    (failure,) = diary.batch()
    assert failure.permanent is permanent


def test_a_database_error_is_reported_without_the_rows_values(diary: Diary) -> None:
    diary.faults[ARENA.id] = lambda connection: connection.execute(
        "INSERT INTO customer_segments VALUES (gen_random_uuid(), %s, 'ada@example.org')", [NORTH]
    )
    (failure,) = diary.batch()
    assert str(failure).startswith("Arena: NotNullViolation: null value in column")
    assert "ada@example.org" not in str(failure)


def test_a_venue_that_is_gone_loses_its_rows(new_diary: Callable[..., Diary]) -> None:
    diary = new_diary(replace(ARENA, gone=True))
    assert diary.batch() == []
    assert diary.entries == [("remove", f"{ARENA.id} of {NORTH}")]
    with diary.database.jobs() as connection:
        attempt = history.last_attempts(connection, diary.run)[ARENA.id]
    assert (attempt.reason, attempt.rows_removed) == ("venue gone: its rows removed", 5)


def test_a_venue_that_changed_hands_leaves_nothing_under_its_former_tenant(
    new_diary: Callable[..., Diary],
) -> None:
    diary = new_diary(replace(ARENA, former_tenant_id=SOUTH))
    assert diary.batch() == []
    assert diary.entries == [("remove", f"{ARENA.id} of {SOUTH}"), ("process", "Arena")]


def test_the_writes_of_a_venue_whose_row_was_closed_meanwhile_are_rolled_back(
    diary: Diary, simple: Database
) -> None:
    def write_and_be_taken_for_dead(connection: psycopg.Connection) -> None:
        connection.execute(
            "INSERT INTO venue_rfm_state (venue_id, tenant_id) VALUES (%s, %s)",
            [ARENA.id, ARENA.tenant_id],
        )
        with simple.superuser() as other:
            other.execute(statement("venue_analytics.harness", "close_left_running"), {"id": 1})

    diary.faults[ARENA.id] = write_and_be_taken_for_dead
    (failure,) = diary.batch()
    assert "its row in history was closed by another process" in str(failure)
    assert not failure.permanent
    assert diary.outcomes()["Arena"] == "failed"
    with simple.superuser() as connection:
        assert connection.execute("SELECT count(*) FROM venue_rfm_state").fetchone() == (0,)


def test_finish_leaves_a_running_venue_alone(diary: Diary, simple: Database) -> None:
    lines: list[str] = []

    def be_finished(_: psycopg.Connection) -> None:
        with simple.jobs() as other:
            at_once = timedelta(0)
            lines.extend(finish_run(other, diary.leases, diary.job, diary.run, stopping=at_once))

    diary.faults[ARENA.id] = be_finished
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
def test_the_databases_errors_are_reported_without_values(
    diary: Diary, query: LiteralString, permanent: bool, words: str
) -> None:
    diary.faults[ARENA.id] = lambda connection: connection.execute(query)
    (failure,) = diary.batch()
    assert words in str(failure)
    assert "ada@example.org" not in str(failure)
    assert failure.permanent is permanent


class MuteError(Exception):
    """An error whose text cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ValueError("half a pair: \ud800, a NUL: \0"),
            r"ValueError: half a pair: \ud800, a NUL: \x00",
        ),
        (MuteError(), "MuteError"),
    ],
    ids=["unprintable", "mute"],
)
def test_an_error_without_a_printable_text_stops_no_other_venue(
    diary: Diary, error: Exception, message: str
) -> None:
    diary.faults[ARENA.id] = fail(error)
    (failure,) = diary.batch()
    assert str(failure) == f"Arena: {message}"
    assert diary.outcomes() == {"Arena": "failed", "Ballroom": "succeeded"}
