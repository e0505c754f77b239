"""A night of a job, move by move, as the harness makes them: plan, begin, succeed, skip, fail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from tests.databases import Database

from venue_analytics.harness import (
    Job,
    JobSettings,
    Outcome,
    Venue,
    VenueResult,
    attempts,
    groups,
    history,
)
from venue_analytics.harness.attempts import VenueAttempt
from venue_analytics.harness.batches import pack
from venue_analytics.harness.errors import LeaseLostError
from venue_analytics.harness.history import Attempt, PlannedRun, RunKey
from venue_analytics.harness.leases import Holder, Leases
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.standing import Work

NAME = "diary"
AS_OF = datetime(2026, 3, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
OURS, THEIRS = UUID(int=1), UUID(int=2)
TONIGHT = RunKey(OURS, NAME, "tonight")
RULES = "the rules"


@dataclass
class Night:
    """Plans runs of a job that keeps nothing, and makes the moves of attempts at their venues."""

    database: Database
    connection: psycopg.Connection
    leases: Leases
    job: Job[Any]

    @classmethod
    def of(cls, database: Database, connection: psycopg.Connection, leases: Leases) -> Night:
        """Give nights of a job that does nothing."""
        job = Job(NAME, JobSettings, (lambda _: VenueResult(),), lambda *_: 0, lambda *_: [])
        return cls(database, connection, leases, job)

    def plan(
        self,
        *venues: Venue,
        key: RunKey = TONIGHT,
        plan_try: int = 1,
        as_of: datetime = AS_OF,
        max_tasks: int = 10,
    ) -> PlannedRun:
        """Store a plan, each venue a batch, and give the run as its latest plan has it."""
        large = [replace(v, expected_seconds=v.expected_seconds or groups.SECONDS) for v in venues]
        history.store_plan(
            self.connection,
            key,
            plan_try=plan_try,
            as_of=as_of,
            request=RunRequest(),
            settings={"retries": 3},
            source_faults=["a venue has no tenant"],
            left_behind=[],
            batches=pack(large, max_tasks=max_tasks),
        )
        run = history.load_run(self.connection, key)
        assert run is not None
        return run

    def begin(
        self,
        run: PlannedRun,
        venue: Venue,
        *,
        try_number: int = 1,
        clear_number: int = 0,
        leased: bool = False,
    ) -> VenueAttempt:
        """Open or join the round of the venue's batch, draw a token and note the attempt."""
        (batch,) = [
            batch
            for batch in history.load_batches(self.connection, run)
            if venue.venue_id in {planned.venue_id for planned in batch.venues}
        ]
        round_ = history.open_round(self.connection, run, batch.number, clear_number)
        work = Work(run.as_of, RULES, run.force, run.id, batch.number, round_, run.plan_number)
        holder = Holder(
            run.deployment, run.run_id, batch.number, try_number, run.as_of, RULES, uuid4()
        )
        attempt = VenueAttempt(run, venue, JobSettings(), work, holder, clear_number=clear_number)
        if leased:
            assert self.leases.take({venue.venue_id: holder}) == {}
        attempts.draw_tokens(self.connection, self.job.name, [attempt])
        attempts.open_rows(self.connection, [attempt])
        return attempt

    def end(self, attempt: VenueAttempt, result: VenueResult | None = None) -> None:
        """End an attempt well, in a transaction of its own."""
        with self.connection.transaction():
            self.enter(attempt)
            attempts.begin(self.connection, self.job, [attempt])
            attempts.close(self.connection, self.job, [attempt], [result or VenueResult()])

    def enter(self, attempt: VenueAttempt) -> None:
        """Begin the work of a transaction; raise LeaseLostError if the token is an old one."""
        if attempts.enter(self.connection, [attempt]):
            raise LeaseLostError(attempts.TAKEN_OVER)

    def succeed(self, run: PlannedRun, *venues: Venue, clear_number: int = 0) -> None:
        """Attempt venues, and do them."""
        for venue in venues:
            self.end(self.begin(run, venue, clear_number=clear_number))

    def skip(self, run: PlannedRun, venue: Venue) -> None:
        """Attempt a venue, and find nothing to do."""
        self.end(self.begin(run, venue), VenueResult(Outcome.SKIPPED, reason="already done"))

    def fail(self, run: PlannedRun, venue: Venue, error: Exception, **options: int) -> None:
        """Attempt a venue, and fail."""
        attempts.close_failed(self.connection, [self.begin(run, venue, **options)], error)

    def attempts(self, run: PlannedRun) -> dict[UUID, Attempt]:
        """How each venue stands in the present round of its batch."""
        return history.last_attempts(self.connection, run)

    def outcome(self, run: PlannedRun) -> str:
        """How the run ended, as history has it."""
        row = self.connection.execute(
            "SELECT outcome FROM jobs.run WHERE id = %s", [run.id]
        ).fetchone()
        assert row is not None
        return str(row[0])
