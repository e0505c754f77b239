"""A night of one job over a few venues in one batch: plan, try, finish, inspect."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row
from tests.databases import Database
from tests.harness import three_steps
from tests.harness.faults.wires import Wires
from tests.harness.faults.worker import Order
from tests.jobs.facts import facts_of

from venue_analytics.harness import Job, VenueSettings, dead_letters, groups, history
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import RunKey
from venue_analytics.harness.leases import LENGTH, RENEWAL, Leases
from venue_analytics.harness.plan import plan_run
from venue_analytics.harness.redis_server import RedisAddress
from venue_analytics.harness.request import RunRequest

AS_OF = datetime(2026, 3, 1, 2, tzinfo=UTC)


def tables_of(job: str) -> Sequence[str]:
    """Return a job's tables in which every column is a function of source, settings and as_of."""
    return three_steps.RESULTS if job == "three_steps" else facts_of(job).tables


@dataclass(frozen=True)
class Night:
    """One run of a job, in its own deployment."""

    database: Database
    order: Order
    tables: Sequence[str] | None = None

    @classmethod
    def plan(
        cls,
        database: Database,
        redis_uri: str,
        job: Job[Any],
        *,
        as_of: datetime = AS_OF,
        settings: VenueSettings | None = None,
        lease: timedelta = LENGTH,
        renew_every: timedelta = RENEWAL,
        together: bool = False,
        tables: Sequence[str] | None = None,
    ) -> Night:
        """Plan all venues of the source in one batch, each alone or all `together` in a group."""
        settings = settings or job.settings(max_tasks=1)
        key = RunKey(uuid4(), job.name, "a night")
        with (
            RedisAddress.parse(redis_uri, name="the test's Redis").client() as client,
            database.jobs() as connection,
        ):
            leases = Leases(client, job.name)
            run = plan_run(connection, leases, job, key, settings, RunRequest(), as_of=as_of)
            (batch,) = history.load_batches(connection, run)
        seconds = 0.01 if together else groups.SECONDS
        units = tuple(replace(unit, expected_seconds=seconds) for unit in batch.units)
        batch = replace(batch, units=units)
        uri = database.uri("analytics_jobs")
        return cls(
            database,
            Order(uri, redis_uri, job, run, batch, settings, 1, lease, renew_every),
            tables,
        )

    @property
    def redis_port(self) -> int:
        """The port of Redis."""
        return urlsplit(self.order.redis_uri).port or 6379

    def through(self, wires: Wires) -> Order:
        """Return the order of the first try, routed through wires."""
        return replace(self.order, database_uri=wires.database_uri, redis_uri=wires.redis_uri)

    def do(
        self, try_number: int = 1, *, job: Job[Any] | None = None, clear_number: int = 0
    ) -> list[str]:
        """Run a try in this process; return the failures as text."""
        return replace(
            self.order,
            try_number=try_number,
            job=job or self.order.job,
            clear_number=clear_number,
        ).do()

    def finish(self) -> list[str]:
        """Finish the run; return what was not done."""
        address = RedisAddress.parse(self.order.redis_uri, name="the test's Redis")
        with address.client() as client, self.database.jobs() as connection:
            leases = Leases(client, self.order.job.name)
            return finish_run(connection, leases, self.order.job, self.order.run)

    def attempts(self) -> list[Any]:
        """Return history's rows of all runs of the job, in the order they were written."""
        with (
            self.database.superuser() as connection,
            connection.cursor(row_factory=namedtuple_row) as cursor,
        ):
            return cursor.execute(
                "SELECT r.*, r.run = %s AS own FROM jobs.unit_run AS r "
                "WHERE r.job = %s ORDER BY r.id",
                [self.order.run.id, self.order.job.name],
            ).fetchall()

    def outcomes(self, venue: str = "Arena") -> list[str]:
        """Return how this run's attempts at a venue ended, with the reason if there is one."""
        return [
            f"{row.outcome}: {row.reason}" if row.reason else row.outcome
            for row in self.attempts()
            if row.own and row.unit_name == venue
        ]

    def kept(self) -> dict[str, list[str]]:
        """Return the rows of the job's tables."""
        with self.database.superuser() as connection:
            tables = self.tables or tables_of(self.order.job.name)
            return {name: _rows(connection, name) for name in tables}

    def faults(self) -> list[str]:
        """Return what is wrong after a night that ended well; it should be nothing."""
        faults = []
        rows = self.attempts()
        for (name, as_of, rules), times in Counter(
            (row.unit_name, row.as_of, row.rules_hash) for row in rows if row.outcome == "succeeded"
        ).items():
            if times > 1:
                faults.append(f"{name} as of {as_of} by {rules} succeeded {times} times")
        faults += [f"{row.unit_name} is still running" for row in rows if row.outcome == "running"]
        if self.order.job.name == "three_steps":
            faults += [f"step done {times} times: {step}" for step, times in self._walked().items()]
        address = RedisAddress.parse(self.order.redis_uri, name="the test's Redis")
        with address.client() as client:
            faults += [f"left in Redis: {key!r}" for key in client.keys("*lease*")]
        with self.database.jobs() as connection:
            faults += [f"open letter: {letter.error}" for letter in dead_letters.find(connection)]
        return faults

    def _walked(self) -> dict[str, int]:
        """Return the steps that did not run exactly once, of all nights."""
        with self.database.superuser() as connection:
            steps = connection.execute(
                "SELECT format('%s %s of %s as of %s', w.step, w.piece, w.venue_id, w.as_of), "
                "count(*) FROM walk AS w GROUP BY 1 HAVING count(*) <> 1"
            ).fetchall()
        return dict(steps)


def wait_until(holds: Callable[[], object], *, within: float) -> float:
    """Wait until a condition holds; return the seconds that it took.

    Args:
        holds: the condition.
        within: at most this many seconds.
    """
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within, f"not within {within} s"
        time.sleep(0.01)
    return time.monotonic() - began


def tokens_that_do_not_rise(rows: list[Any]) -> list[str]:
    """Return the attempts whose fencing token is not above the one before."""
    faults = []
    highest: dict[str, int] = {}
    for row in rows:
        if row.token is None:
            continue
        if row.token <= highest.get(row.unit_name, 0):
            faults.append(f"{row.unit_name}: token {row.token} after {highest[row.unit_name]}")
        highest[row.unit_name] = row.token
    return faults


def _rows(connection: psycopg.Connection, table: str) -> list[str]:
    rows = connection.execute(
        sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(table))
    )
    return [row for (row,) in rows]
