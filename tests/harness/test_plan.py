"""Plan: which venues a run does, which faults of the source it reports, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import redis
from tests.databases import Database
from tests.harness.simple_venues import ARENA, BALLROOM, CELLAR, DOME, NORTH, SOUTH, fill

from venue_analytics.harness import (
    PermanentError,
    TransientError,
    Unit,
    dead_letters,
    history,
)
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.leases import Holder, Leases
from venue_analytics.harness.plan import plan_run
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.request import RunRequest
from venue_analytics.jobs.rfm_scoring import JOB as RFM_SCORING
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

AS_OF = datetime(2026, 2, 1, tzinfo=UTC)
TONIGHT = RunKey(UUID(int=1), RFM_SCORING.name, "tonight")
LAST_NIGHT = replace(TONIGHT, run_id="last night")
NOWHERE = UUID("90000000-0000-4000-8000-000000000009")


class Planner:
    """Plans nights over the simple adapter's venues."""

    def __init__(self, database: Database, connection: psycopg.Connection, leases: Leases) -> None:
        self.database = database
        self.connection = connection
        self.leases = leases
        self.plans = 0

    def plan(
        self,
        request: dict[str, Any] | None = None,
        as_of: datetime = AS_OF,
        *,
        key: RunKey = TONIGHT,
        is_over: Callable[[str], bool] | None = None,
        **settings: Any,
    ) -> PlannedRun:
        """Plan the run of the night; a later plan replaces the earlier ones."""
        self.plans += 1
        return plan_run(
            self.connection,
            self.leases,
            RFM_SCORING,
            key,
            RfmScoringSettings(**settings),
            RunRequest.read(request or {}, RFM_SCORING),
            as_of=as_of,
            plan_try=self.plans,
            is_over=is_over,
        )

    def venues(self, run: PlannedRun) -> list[Unit]:
        """Return the venues of a plan."""
        batches = history.load_batches(self.connection, run)
        return [venue for batch in batches for venue in batch.units]

    def names(self, run: PlannedRun) -> list[str]:
        """Return the names of the venues of a plan."""
        return [venue.name for venue in self.venues(run)]

    def score(self) -> None:
        """Plan, and process every venue."""
        run = self.plan()
        for batch in history.load_batches(self.connection, run):
            batch_try = BatchTry.of(RFM_SCORING, run, batch)
            assert process_batch(self.database.jobs, self.leases, RFM_SCORING, batch_try) == []


@pytest.fixture
def superuser(simple: Database) -> Iterator[psycopg.Connection]:
    with simple.superuser() as superuser:
        fill(superuser)
        yield superuser


@pytest.fixture
def planner(
    simple: Database, superuser: psycopg.Connection, redis_client: redis.Redis
) -> Iterator[Planner]:
    with simple.jobs() as connection:
        yield Planner(simple, connection, Leases(redis_client, RFM_SCORING.name))


def test_all_venues_of_all_tenants_are_planned(planner: Planner) -> None:
    run = planner.plan()
    assert planner.venues(run) == [ARENA, BALLROOM, CELLAR, DOME]
    assert run.source_faults == []


def test_the_settings_are_kept_with_the_run(planner: Planner) -> None:
    run = planner.plan(vip_min_total=13)
    assert RfmScoringSettings.model_validate(run.settings) == RfmScoringSettings(vip_min_total=13)


def test_settings_include_and_exclude_venues(planner: Planner) -> None:
    two = [ARENA.id, DOME.id]
    assert planner.names(planner.plan(include_venues=two)) == ["Arena", "Dome"]
    assert planner.names(planner.plan(exclude_venues=two)) == ["Ballroom", "Cellar"]
    both = planner.plan(include_venues=two, exclude_venues=[DOME.id])
    assert planner.names(both) == ["Arena"]


def test_a_request_overrides_the_settings(planner: Planner) -> None:
    request = {"venues": [str(DOME.id)]}
    run = planner.plan(request, exclude_venues=[DOME.id])
    assert planner.names(run) == ["Dome"]


def test_a_request_for_an_unknown_venue_is_refused(planner: Planner) -> None:
    with pytest.raises(PermanentError, match=f"venues = {NOWHERE}: must be ids of open venues"):
        planner.plan({"venues": [str(NOWHERE)]})


def test_a_moment_in_the_future_is_refused(planner: Planner) -> None:
    with pytest.raises(PermanentError, match="lies in the future; allowed: up to now"):
        planner.plan(as_of=datetime.now(UTC) + timedelta(hours=1))


def test_a_moment_just_ahead_of_the_databases_clock_is_refused_for_now(
    planner: Planner,
) -> None:
    with pytest.raises(TransientError, match="lies just ahead of the database's clock"):
        planner.plan(as_of=datetime.now(UTC) + timedelta(seconds=30))


def test_a_venue_that_only_the_settings_know_is_reported(planner: Planner) -> None:
    run = planner.plan(exclude_venues=[NOWHERE])
    assert run.source_faults == [
        f"setting exclude_venues names venue {NOWHERE}, which source.venues does not list"
    ]


def test_a_venue_without_a_tenant_is_left_out_and_reported(
    planner: Planner, superuser: psycopg.Connection
) -> None:
    superuser.execute("INSERT INTO venues VALUES (%s, NULL, 'Nomad')", [NOWHERE])
    run = planner.plan()
    assert "Nomad" not in planner.names(run)
    assert run.source_faults == [f"venue Nomad ({NOWHERE}) has no tenant: left out"]


def test_a_venue_without_a_name_is_named_by_its_id(
    planner: Planner, superuser: psycopg.Connection
) -> None:
    superuser.execute("INSERT INTO venues VALUES (%s, %s, NULL)", [NOWHERE, SOUTH])
    assert str(NOWHERE) in planner.names(planner.plan())


def test_a_venue_with_scores_that_is_no_longer_listed_is_gone(
    planner: Planner, superuser: psycopg.Connection
) -> None:
    superuser.execute("DELETE FROM venues WHERE id = %s", [DOME.id])
    assert len(planner.venues(planner.plan())) == 3
    superuser.execute("INSERT INTO venues VALUES (%s, %s, 'Dome')", [DOME.id, DOME.tenant_id])
    planner.score()
    superuser.execute("DELETE FROM venues WHERE id = %s", [DOME.id])
    gone = [
        replace(venue, expected_seconds=None)
        for venue in planner.venues(planner.plan())
        if venue.gone
    ]
    assert gone == [Unit(DOME.id, SOUTH, str(DOME.id), gone=True)]


def test_a_venue_that_changed_hands_names_its_former_tenant(
    planner: Planner, superuser: psycopg.Connection
) -> None:
    planner.score()
    superuser.execute("UPDATE venues SET tenant_id = %s WHERE id = %s", [NORTH, DOME.id])
    (dome,) = [v for v in planner.venues(planner.plan()) if v.id == DOME.id]
    assert (dome.tenant_id, dome.former_tenant_id) == (NORTH, SOUTH)


def test_a_source_that_lists_nothing_removes_nothing(
    planner: Planner, superuser: psycopg.Connection
) -> None:
    planner.score()
    superuser.execute("DELETE FROM venues")
    with pytest.raises(PermanentError, match="holds results of 4 venues: nothing is removed"):
        planner.plan()


def test_a_venue_is_expected_to_take_as_long_as_last_time(planner: Planner) -> None:
    assert {venue.expected_seconds for venue in planner.venues(planner.plan())} == {None}
    planner.score()
    expected = [venue.expected_seconds for venue in planner.venues(planner.plan())]
    assert all(seconds is not None and seconds > 0 for seconds in expected)


# runs that were left open ----------------------------------------------------------------


def outcomes(planner: Planner) -> dict[str, str]:
    rows = planner.connection.execute("SELECT run_id, outcome FROM jobs.run").fetchall()
    return dict(rows)


def test_a_run_that_ended_without_its_finish_is_ended_and_reported(planner: Planner) -> None:
    asked: list[str] = []

    def is_over(run_id: str) -> bool:
        asked.append(run_id)
        return True

    planner.plan(key=LAST_NIGHT)
    run = planner.plan(is_over=is_over)
    assert asked == ["last night"]
    (line,) = run.left_behind
    assert line == (
        "run last night as of 2026-02-01 00:00:00 UTC ended without its finish; "
        "not done: Arena, Ballroom, Cellar, Dome"
    )
    assert outcomes(planner) == {"last night": "failed", "tonight": "planned"}
    letters = dead_letters.find(planner.connection)
    assert {letter.unit_name for letter in letters} == {"Arena", "Ballroom", "Cellar", "Dome"}
    assert {letter.error for letter in letters} == {"it was never begun"}


def test_a_run_that_is_still_running_is_left_alone(planner: Planner) -> None:
    planner.plan(key=LAST_NIGHT)
    assert planner.plan(is_over=lambda _: False).left_behind == []
    assert outcomes(planner) == {"last night": "planned", "tonight": "planned"}


def test_a_run_of_another_deployment_is_left_alone(planner: Planner) -> None:
    planner.plan(key=replace(LAST_NIGHT, deployment=UUID(int=2)))
    assert planner.plan(is_over=lambda _: True).left_behind == []
    assert outcomes(planner) == {"last night": "planned", "tonight": "planned"}


def test_a_run_of_the_command_line_is_over_when_its_own_lease_is_gone(planner: Planner) -> None:
    runs = {UUID(int=number): f"cli__{number}" for number in (2, 3)}
    own = {run: Holder(run, run_id, -1, 1, AS_OF, "", run) for run, run_id in runs.items()}
    planner.leases.take(own)
    for run, run_id in runs.items():
        planner.plan(key=RunKey(run, TONIGHT.job, run_id))
    dead = UUID(int=2)
    planner.leases.release({dead: own[dead]})
    (line,) = planner.plan(is_over=lambda _: False).left_behind
    assert line.startswith("run cli__2 ")
    assert outcomes(planner) == {"cli__2": "failed", "cli__3": "planned", "tonight": "planned"}


def test_a_plan_that_is_refused_ends_no_other_run(planner: Planner) -> None:
    planner.plan(key=LAST_NIGHT)
    with pytest.raises(PermanentError):
        planner.plan({"venues": [str(NOWHERE)]}, is_over=lambda _: True)
    assert outcomes(planner) == {"last night": "planned"}
    assert dead_letters.find(planner.connection) == []


def test_the_next_try_of_plan_reports_what_a_failed_one_found(planner: Planner) -> None:
    planner.plan(key=LAST_NIGHT)
    (line,) = planner.plan(is_over=lambda _: True).left_behind
    assert planner.plan(is_over=lambda _: True).left_behind == [line]
