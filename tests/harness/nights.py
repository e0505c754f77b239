"""A night of a job, one move of the harness at a time: plan, begin, succeed, skip, fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from tests.databases import Database

from venue_analytics.harness import (
    Job,
    Outcome,
    Unit,
    UnitResult,
    VenueSettings,
    attempts,
    groups,
    history,
)
from venue_analytics.harness.attempts import BatchTry, UnitAttempt
from venue_analytics.harness.batches import Batch, pack
from venue_analytics.harness.errors import LeaseLostError
from venue_analytics.harness.history import Attempt, PlannedRun, RunKey
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.request import RunRequest

NAME = "diary"
AS_OF = datetime(2026, 3, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
OURS, THEIRS = UUID(int=1), UUID(int=2)
TONIGHT = RunKey(OURS, NAME, "tonight")
RULES = "the rules"


def store_run(
    connection: psycopg.Connection,
    key: RunKey,
    batches: Sequence[Batch],
    *,
    plan_try: int = 1,
    as_of: datetime = AS_OF,
    settings: dict[str, Any] | None = None,
    source_faults: Sequence[str] = (),
) -> PlannedRun:
    """Store a plan, and return the run with its latest plan."""
    history.store_plan(
        connection,
        key,
        plan_try=plan_try,
        as_of=as_of,
        request=RunRequest(),
        settings=settings or {},
        source_faults=list(source_faults),
        left_behind=[],
        batches=list(batches),
    )
    run = history.load_run(connection, key)
    assert run is not None
    return run


@dataclass
class Night:
    """Plans runs of a job that keeps nothing, and makes the moves of their attempts."""

    database: Database
    connection: psycopg.Connection
    leases: Leases
    job: Job[Any]

    @classmethod
    def of(cls, database: Database, connection: psycopg.Connection, leases: Leases) -> Night:
        """Return nights of a job that does nothing."""
        steps = {"do nothing": lambda _: UnitResult()}
        job = Job(NAME, VenueSettings, steps, lambda *_: 0, lambda *_: [])
        return cls(database, connection, leases, job)

    def plan(
        self,
        *venues: Unit,
        key: RunKey = TONIGHT,
        plan_try: int = 1,
        as_of: datetime = AS_OF,
        max_tasks: int = 10,
    ) -> PlannedRun:
        """Store a plan with one batch per venue, and return the run with its latest plan."""
        large = [replace(v, expected_seconds=v.expected_seconds or groups.SECONDS) for v in venues]
        return store_run(
            self.connection,
            key,
            pack(large, max_tasks=max_tasks),
            plan_try=plan_try,
            as_of=as_of,
            settings={"retries": 3},
            source_faults=["a venue has no tenant"],
        )

    def begin(
        self,
        run: PlannedRun,
        venue: Unit,
        *,
        try_number: int = 1,
        clear_number: int = 0,
        leased: bool = False,
    ) -> UnitAttempt:
        """Open or join the round of the venue's batch, draw a token and open the attempt's row."""
        (batch,) = [
            batch
            for batch in history.load_batches(self.connection, run)
            if venue.id in {planned.id for planned in batch.units}
        ]
        round_ = history.open_round(self.connection, run, batch.number, clear_number)
        batch_try = BatchTry.of(
            self.job, run, batch, try_number=try_number, clear_number=clear_number
        )
        batch_try = replace(batch_try, round=round_)
        attempt = UnitAttempt(batch_try, venue, VenueSettings(), RULES, batch_try.process)
        if leased:
            assert self.leases.take({venue.id: attempt.holder}) == {}
        attempts.draw_tokens(self.connection, self.job.name, [attempt])
        attempts.open_rows(self.connection, [attempt])
        return attempt

    def end(self, attempt: UnitAttempt, result: UnitResult | None = None) -> None:
        """End an attempt successfully, in its own transaction."""
        with self.connection.transaction():
            self.enter(attempt)
            attempts.begin(self.connection, self.job, [attempt])
            attempts.close(self.connection, self.job, [attempt], [result or UnitResult()])

    def enter(self, attempt: UnitAttempt) -> None:
        """Begin the work of a transaction; raise LeaseLostError if the token is old."""
        if attempts.enter(self.connection, [attempt]):
            raise LeaseLostError(attempts.TAKEN_OVER)

    def succeed(self, run: PlannedRun, *venues: Unit, clear_number: int = 0) -> None:
        """Attempt venues, and succeed."""
        for venue in venues:
            self.end(self.begin(run, venue, clear_number=clear_number))

    def skip(self, run: PlannedRun, venue: Unit) -> None:
        """Attempt a venue, and find nothing to do."""
        self.end(self.begin(run, venue), UnitResult(Outcome.SKIPPED, reason="already done"))

    def fail(self, run: PlannedRun, venue: Unit, error: Exception, **options: int) -> None:
        """Attempt a venue, and fail."""
        attempts.close_failed(self.connection, [self.begin(run, venue, **options)], error)

    def attempts(self, run: PlannedRun) -> dict[UUID, Attempt]:
        """Return the last attempt at each venue in the current round of its batch."""
        return history.last_attempts(self.connection, run)

    def outcome(self, run: PlannedRun) -> str:
        """Return the outcome of the run in history."""
        row = self.connection.execute(
            "SELECT outcome FROM jobs.run WHERE id = %s", [run.id]
        ).fetchone()
        assert row is not None
        return str(row[0])
