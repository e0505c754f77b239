"""No venue ever holds rows of two nights or two sets of rules, whatever dies or is edited."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from tests.databases import Database
from tests.harness.runner import Runner
from tests.harness.simple_venues import ARENA, SOUTH
from tests.harness.three_steps import RESULTS, TABLES, THREE_STEPS

from venue_analytics.harness.history import PlannedRun

TONIGHT = datetime(2026, 3, 1, 2, tzinfo=UTC)
LAST_WEEK = TONIGHT - timedelta(days=7)
STEPS = ["count 0", "count 1", "rank 0", "publish 0"]


@dataclass
class Airflow:
    """The run of a night in one deployment, as Airflow drives it: plan, tries, clears."""

    house: House
    as_of: datetime
    force: bool = False
    deployment: UUID = field(default_factory=uuid4)
    run: PlannedRun = field(init=False)
    plans: int = 0
    tries: int = 0
    clears: int = 0

    def plan(self, bonus: int = 0) -> None:
        """Plan, or plan again after an edit and a clear."""
        self.plans += 1
        self.run = self.house.runner.plan(
            THREE_STEPS,
            as_of=self.as_of,
            deployment=self.deployment,
            plan_try=self.plans,
            conf={"venues": [str(ARENA.id)], "force": self.force},
            bonus=bonus,
        )

    def work(self) -> list[str]:
        """Try every batch once, then finish; return what was not done."""
        self.tries += 1
        self.house.runner.process(
            THREE_STEPS, self.run, try_number=self.tries, clear_number=self.clears
        )
        return self.house.runner.finish(THREE_STEPS, self.run)


@dataclass
class House:
    """One venue, its results, and a fault for one of the steps."""

    runner: Runner
    superuser: psycopg.Connection

    @contextmanager
    def broken(self, table: str) -> Iterator[None]:
        """Make PostgreSQL refuse every write to a step's table."""
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
        """Return the nights and bonuses of the rows, by table."""
        return {
            table: set(
                self.superuser.execute(
                    sql.SQL("SELECT as_of, bonus FROM {}").format(sql.Identifier(table))
                ).fetchall()
            )
            for table in RESULTS
        }

    def walk(self) -> list[str]:
        """Return the committed steps in order, and forget them."""
        rows = self.superuser.execute(
            "DELETE FROM walk RETURNING id, step || ' ' || piece"
        ).fetchall()
        return [step for _, step in sorted(rows)]

    def successes(self) -> int:
        """Count the attempts that succeeded."""
        (count,) = self.superuser.execute(
            "SELECT count(*) FROM jobs.unit_run WHERE outcome = 'succeeded'"
        ).fetchone() or (0,)
        return int(count)


@pytest.fixture
def house(runner: Runner, simple: Database) -> Iterator[House]:
    with simple.superuser() as superuser:
        superuser.execute(TABLES)
        yield House(runner, superuser)


def all_of(as_of: datetime, bonus: int) -> dict[str, set[tuple[datetime, int]]]:
    return {table: {(as_of, bonus)} for table in RESULTS}


def test_a_retry_resumes_after_the_last_step_that_committed(house: House) -> None:
    night = Airflow(house, TONIGHT)
    night.plan()
    with house.broken("published"):
        assert night.work() == ["Arena: RaiseException: the disk is full"]
    assert house.walk() == STEPS[:3]
    assert night.work() == []
    assert house.walk() == STEPS[3:]
    assert house.holds() == all_of(TONIGHT, 0)


@pytest.mark.fault("mixed-rules")
def test_after_an_edit_work_begun_by_the_old_rules_does_not_count(house: House) -> None:
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
def test_a_clear_after_a_success_by_other_rules_leaves_no_row_of_them(house: House) -> None:
    night = Airflow(house, TONIGHT)
    night.plan(bonus=0)
    assert night.work() == []
    night.clears += 1
    night.plan(bonus=5)
    with house.broken("published"):
        night.work()
    house.walk()
    # half-way: the sums are new, the published rows old; this is not done until the retry succeeds
    night.plan(bonus=5)
    assert night.work() == []
    assert house.holds() == all_of(TONIGHT, 5)


@pytest.mark.fault("mixed-rules")
def test_after_a_forced_older_night_died_half_way_tonight_is_done_again(house: House) -> None:
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
def test_a_night_that_was_overwritten_is_done_again_on_request(house: House) -> None:
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


def test_without_force_an_older_night_does_not_replace_a_newer_one(house: House) -> None:
    tonight = Airflow(house, TONIGHT)
    tonight.plan()
    assert tonight.work() == []
    older = Airflow(house, LAST_WEEK)
    older.plan()
    assert older.work() == []
    assert house.holds() == all_of(TONIGHT, 0)
    assert house.successes() == 1


def test_a_venue_that_changed_hands_half_way_starts_over_under_its_new_tenant(
    house: House,
) -> None:
    last_week = Airflow(house, LAST_WEEK)
    last_week.plan()
    assert last_week.work() == []
    night = Airflow(house, TONIGHT)
    night.plan()
    with house.broken("ranked"):
        assert night.work() != []
    house.walk()
    for table, column in (("venues", "id"), ("orders", "venue_id")):
        house.superuser.execute(
            sql.SQL("UPDATE {} SET tenant_id = %s WHERE {} = %s").format(
                sql.Identifier(table), sql.Identifier(column)
            ),
            [SOUTH, ARENA.id],
        )
    # the same night in another deployment: the first one's counts belong to the former tenant
    again = Airflow(house, TONIGHT)
    again.plan()
    assert again.work() == []
    assert house.walk() == STEPS
    for table in RESULTS:
        rows = house.superuser.execute(
            sql.SQL("SELECT DISTINCT tenant_id FROM {}").format(sql.Identifier(table))
        )
        assert rows.fetchall() == [(SOUTH,)]
