"""An action recorded while another process declares it abandoned has no open letter."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from tests.databases import Database
from tests.harness.simple_venues import ARENA

from venue_analytics.harness import (
    Action,
    Effect,
    Job,
    UnitResult,
    VenueSettings,
    attempts,
    dead_letters,
    effects,
    history,
)
from venue_analytics.harness.attempts import BatchTry, UnitAttempt
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.history import RunKey
from venue_analytics.harness.request import RunRequest

NAME = "mails"
MAIL = Action("mail", {"to": "somebody"})


def begin(connection: psycopg.Connection) -> UnitAttempt:
    """Begin an attempt at one venue."""
    key = RunKey(UUID(int=1), NAME, "tonight")
    job = Job(NAME, VenueSettings, {"end": lambda _: UnitResult()}, lambda *_: 0, lambda *_: [])
    settings = VenueSettings()
    batch = Batch(0, "Arena", (ARENA,))
    history.store_plan(
        connection,
        key,
        plan_try=1,
        as_of=datetime(2026, 3, 1, 2, tzinfo=UTC),
        request=RunRequest(),
        settings=settings.model_dump(mode="json"),
        source_faults=[],
        left_behind=[],
        batches=[batch],
    )
    run = history.load_run(connection, key)
    assert run is not None
    batch_try = BatchTry.of(job, run, batch)
    attempt = UnitAttempt(batch_try, ARENA, settings, "the rules", batch_try.process)
    attempts.draw_tokens(connection, NAME, [attempt])
    attempts.open_rows(connection, [attempt])
    return attempt


def wait_for_lock(observer: psycopg.Connection, connection: psycopg.Connection) -> None:
    """Wait until a statement of the connection waits for a lock."""
    until = time.monotonic() + 10
    asked = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    while observer.execute(asked, [connection.info.backend_pid]).fetchone() is None:
        assert time.monotonic() < until, "no statement waits for a lock"


def test_a_letter_that_is_written_meanwhile_is_resolved(simple: Database) -> None:
    is_abandoned = threading.Event()
    with (
        simple.jobs() as connection,
        simple.jobs() as other,
        simple.superuser() as observer,
        ThreadPoolExecutor() as pool,
    ):
        attempt = begin(connection)

        def abandon() -> None:
            with other.transaction():
                effects.write_abandoned(other, NAME, ARENA)
                is_abandoned.set()
                wait_for_lock(observer, connection)

        def act(_: Action) -> None:
            observer.execute("UPDATE jobs.fence SET token = token + 1")
            abandoning.append(pool.submit(abandon))
            assert is_abandoned.wait(timeout=10)

        @contextmanager
        def entered() -> Iterator[None]:
            with connection.transaction():
                yield

        abandoning: list[Future[None]] = []
        effects.perform(connection, attempt, Effect(lambda _: [], act), [MAIL], entered)
        abandoning[0].result()
        assert connection.execute("SELECT state FROM jobs.action").fetchall() == [("done",)]
        (letter,) = dead_letters.find(connection, job=NAME, ended=True)
        assert letter.state == "resolved"
