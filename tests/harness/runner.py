"""A job as Airflow runs it: planned, tried batch by batch, finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import redis
from psycopg.rows import namedtuple_row
from tests.databases import Database
from tests.harness.nights import AS_OF, OURS

from venue_analytics.harness import Job, Unit, history
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.plan import plan_run
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.request import RunRequest


@dataclass
class Runner:
    """Runs jobs over the venues of a source."""

    database: Database
    connection: psycopg.Connection
    redis: redis.Redis

    def leases(self, job: Job[Any]) -> Leases:
        """Return the leases of a job."""
        return Leases(self.redis, job.name)

    def plan(
        self,
        job: Job[Any],
        run_id: str = "tonight",
        *,
        as_of: datetime = AS_OF,
        deployment: UUID = OURS,
        plan_try: int = 1,
        conf: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> PlannedRun:
        """Plan a run with these settings, as requested in `conf`."""
        return plan_run(
            self.connection,
            self.leases(job),
            job,
            RunKey(deployment, job.name, run_id),
            job.settings(**settings),
            RunRequest.read(conf or {}, job),
            as_of=as_of,
            plan_try=plan_try,
        )

    def process(
        self, job: Job[Any], run: PlannedRun, *, try_number: int = 1, clear_number: int = 0
    ) -> list[str]:
        """Try every batch once; return the failures as text."""
        failures = []
        for batch in history.load_batches(self.connection, run):
            batch_try = BatchTry.of(
                job, run, batch, try_number=try_number, clear_number=clear_number
            )
            failures += process_batch(self.database.jobs, self.leases(job), job, batch_try)
        return [str(failure) for failure in failures]

    def finish(self, job: Job[Any], run: PlannedRun) -> list[str]:
        """Finish a run without waiting for stopping processes; return what was not done."""
        return finish_run(
            self.connection, self.leases(job), job, run, stopping=timedelta(seconds=0)
        )

    def run(self, job: Job[Any], run_id: str = "tonight", **options: Any) -> PlannedRun:
        """Plan a run, try it once and finish it; all of it must succeed."""
        run = self.plan(job, run_id, **options)
        assert self.process(job, run) == []
        assert self.finish(job, run) == []
        return run

    def units(self, run: PlannedRun) -> list[Unit]:
        """Return the units that a run has planned."""
        batches = history.load_batches(self.connection, run)
        return [unit for batch in batches for unit in batch.units]

    def attempts(self, job: Job[Any], run: PlannedRun | None = None) -> list[Any]:
        """Return history's rows of a job, or of one run, in the order they were written."""
        with self.connection.cursor(row_factory=namedtuple_row) as cursor:
            return cursor.execute(
                "SELECT * FROM jobs.unit_run WHERE job = %s AND (run = %s OR %s::bigint IS NULL) "
                "ORDER BY id",
                [job.name, run and run.id, run and run.id],
            ).fetchall()

    def outcomes(self, job: Job[Any], run: PlannedRun) -> dict[str, str]:
        """Return how each unit of a run ended last, with the reason if there is one."""
        return {
            row.unit_name: f"{row.outcome}: {row.reason}" if row.reason else row.outcome
            for row in self.attempts(job, run)
        }
