"""No venue ever holds rows of two nights or two sets of rules, whatever died and was edited."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import redis
from psycopg import sql
from tests.databases import Database
from tests.harness.simple_venues import ARENA, fill
from tests.harness.three_steps import RESULTS, TABLES, THREE_STEPS, ThreeStepsSettings

from venue_analytics.harness import history
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import RunKey
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.plan import plan_run
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.request import RunRequest

TONIGHT = datetime(2026, 3, 1, 2, tzinfo=UTC)
LAST_WEEK = TONIGHT - timedelta(days=7)
STEPS = ["count 0", "count 1", "rank 0", "publish 0"]


@dataclass
class Airflow:
    """One deployment's run of a night, as Airflow drives it: plan, tries, clears."""

    house: House
    as_of: datetime
    force: bool = False
    key: RunKey = field(default_factory=lambda: RunKey(uuid4(), "three_steps", "a night"))
    plans: int = 0
    tries: int = 0
    clears: int = 0

    def plan(self, bonus: int = 0) -> None:
        """Plan, or after an edit and a clear plan anew."""
        self.plans += 1
        with self.house.database.jobs() as connection:
            plan_run(
                connection,
                self.house.leases,
                THREE_STEPS,
                self.key,
                ThreeStepsSettings(bonus=bonus),
                RunRequest(venues=None, as_of=None, force=self.force),
                as_of=self.as_of,
                plan_try=self.plans,
            )

    def work(self) -> list[str]:
        """Make one try of every batch, then finish; gives what did not end well."""
        self.tries += 1
        with self.house.database.jobs() as connection:
            run = history.load_run(connection, self.key)
            assert run is not None
            for batch in history.load_batches(connection, run):
                process_batch(
                    self.house.database.jobs,
                    self.house.leases,
                    THREE_STEPS,
                    run,
                    batch,
                    ThreeStepsSettings.model_validate(run.settings),
                    try_number=self.tries,
                    clear_number=self.clears,
                )
            return finish_run(connection, self.house.leases, THREE_STEPS, run)


@dataclass
class House:
    """One venue, its results, and a fault to put into a step."""

    database: Database
    leases: Leases
    superuser: psycopg.Connection

    @contextmanager
    def broken(self, table: str) -> Iterator[None]:
        """Have PostgreSQL refuse what a step writes into its table."""
        self.superuser.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql "
            "AS $$ BEGIN RAISE EXCEPTION 'the disk is full'; END $$"
        )
        self.superuser.execute(
            sql.SQL("CREATE TRIGGER refuse BEFORE INSERT ON {} EXECUTE FUNCTION refuse()").format(
                sql.Identifier(table)
            )
        )
        yield
        self.superuser.execute("DROP FUNCTION refuse() CASCADE")

    def holds(self) -> dict[str, set[tuple[datetime, int]]]:
        """Give, table by table, the nights and bonuses that its rows are of."""
        return {
            table: set(
                self.superuser.execute(
                    sql.SQL("SELECT as_of, bonus FROM {}").format(sql.Identifier(table))
                ).fetchall()
            )
            for table in RESULTS
        }

    def walk(self) -> list[str]:
        """Give the steps that have committed, in order, and forget them."""
        rows = self.superuser.execute(
            "DELETE FROM walk RETURNING id, step || ' ' || piece"
        ).fetchall()
        return [step for _, step in sorted(rows)]

    def successes(self) -> int:
        """Count the attempts that did the venue."""
        (count,) = self.superuser.execute(
            "SELECT count(*) FROM jobs.venue_run WHERE outcome = 'succeeded'"
        ).fetchone() or (0,)
        return int(count)


@pytest.fixture
def house(simple: Database, redis_client: redis.Redis) -> Iterator[House]:
    with simple.superuser() as superuser:
        fill(superuser, (ARENA,))
        superuser.execute(TABLES)
        yield House(simple, Leases(redis_client, THREE_STEPS.name), superuser)


def all_of(as_of: datetime, bonus: int) -> dict[str, set[tuple[datetime, int]]]:
    return {table: {(as_of, bonus)} for table in RESULTS}


def test_a_retry_goes_on_after_the_last_step_that_committed(house: House) -> None:
    night = Airflow(house, TONIGHT)
    night.plan()
    with house.broken("published"):
        assert night.work() == ["Arena: RaiseException: the disk is full"]
    assert house.walk() == STEPS[:3]
    assert night.work() == []
    assert house.walk() == STEPS[3:]
    assert house.holds() == all_of(TONIGHT, 0)


@pytest.mark.fault("mixed-rules")
def test_after_an_edit_nothing_that_was_begun_by_the_old_rules_counts(house: House) -> None:
    night = Airflow(house, TONIGHT)
    night.plan(bonus=0)
    with house.broken("ranked"):
        night.work()
    assert house.walk() == STEPS[:2]
    night.clears += 1
    night.plan(bonus=5)
    assert night.work() == []
    assert house.walk() == STEPS
    assert house.holds() == all_of(TONIGHT, 5)


@pytest.mark.fault("mixed-rules")
def test_a_clear_after_a_success_by_other_rules_leaves_no_row_of_these(house: House) -> None:
    night = Airflow(house, TONIGHT)
    night.plan(bonus=0)
    assert night.work() == []
    night.clears += 1
    night.plan(bonus=5)
    with house.broken("published"):
        night.work()
    house.walk()
    # half-way: the sums are new, what is published is old; only the retry may be called done
    night.plan(bonus=5)
    assert night.work() == []
    assert house.holds() == all_of(TONIGHT, 5)


@pytest.mark.fault("mixed-rules")
def test_a_forced_older_night_that_died_half_way_proves_nothing_of_tonight(house: House) -> None:
    night = Airflow(house, TONIGHT)
    night.plan(bonus=3)
    assert night.work() == []
    older = Airflow(house, LAST_WEEK, force=True)
    older.plan(bonus=3)
    with house.broken("ranked"):
        assert older.work() != []
    house.walk()
    again = Airflow(house, TONIGHT)
    again.plan(bonus=3)
    assert again.work() == []
    assert house.walk() == STEPS
    assert house.holds() == all_of(TONIGHT, 3)


@pytest.mark.fault("forced-older-overwrites")
def test_a_night_that_was_overwritten_is_done_again_when_it_is_asked_for(house: House) -> None:
    tonight = Airflow(house, TONIGHT)
    tonight.plan()
    assert tonight.work() == []
    older = Airflow(house, LAST_WEEK, force=True)
    older.plan()
    assert older.work() == []
    assert house.holds() == all_of(LAST_WEEK, 0)
    again = Airflow(house, TONIGHT)
    again.plan()
    assert again.work() == []
    assert house.holds() == all_of(TONIGHT, 0)
    assert house.successes() == 3


def test_without_force_an_older_night_leaves_a_newer_one_as_it_is(house: House) -> None:
    tonight = Airflow(house, TONIGHT)
    tonight.plan()
    assert tonight.work() == []
    older = Airflow(house, LAST_WEEK)
    older.plan()
    assert older.work() == []
    assert house.holds() == all_of(TONIGHT, 0)
    assert house.successes() == 1
