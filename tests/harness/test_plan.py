"""Plan: which venues a run does, what it tells of the source, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.conftest import Database
from tests.harness.simple_venues import ARENA, BALLROOM, CELLAR, DOME, NORTH, SOUTH, fill

from venue_analytics.harness import PermanentError, Venue, history
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.plan import plan_run
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.request import RunRequest
from venue_analytics.jobs import RFM_SCORING
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

AS_OF = datetime(2026, 2, 1, tzinfo=UTC)
NOWHERE = UUID("90000000-0000-4000-8000-000000000009")


class Planner:
    """Plans nights over the simple adapter's venues."""

    def __init__(self, database: Database, connection: psycopg.Connection) -> None:
        self.database = database
        self.connection = connection

    def plan(
        self,
        request: dict[str, Any] | None = None,
        as_of: datetime = AS_OF,
        **settings: Any,
    ) -> PlannedRun:
        """Plan the run of the night; a second time replaces the first plan."""
        return plan_run(
            self.connection,
            RFM_SCORING,
            RunKey(UUID(int=1), RFM_SCORING.name, "a night"),
            RfmScoringSettings(**settings),
            RunRequest.read(request or {}),
            as_of=as_of,
        )

    def venues(self, run: PlannedRun) -> list[Venue]:
        """The venues that a plan names."""
        batches = history.load_batches(self.connection, run)
        return [venue for batch in batches for venue in batch.venues]

    def names(self, run: PlannedRun) -> list[str]:
        """The names of these."""
        return [venue.name for venue in self.venues(run)]

    def score(self) -> None:
        """Plan, and do every venue."""
        run = self.plan()
        for batch in history.load_batches(self.connection, run):
            settings = RfmScoringSettings()
            assert process_batch(self.database.jobs, RFM_SCORING, run, batch, settings) == []


@pytest.fixture
def superuser(simple: Database) -> Iterator[psycopg.Connection]:
    with simple.superuser() as superuser:
        fill(superuser)
        yield superuser


@pytest.fixture
def planner(simple: Database, superuser: psycopg.Connection) -> Iterator[Planner]:
    with simple.jobs() as connection:
        yield Planner(simple, connection)


def test_all_venues_of_all_tenants_are_planned(planner: Planner) -> None:
    run = planner.plan()
    assert planner.venues(run) == [ARENA, BALLROOM, CELLAR, DOME]
    assert run.source_faults == []


def test_the_settings_are_kept_with_the_run(planner: Planner) -> None:
    run = planner.plan(vip_min_total=13)
    assert RfmScoringSettings.model_validate(run.settings) == RfmScoringSettings(vip_min_total=13)


def test_settings_include_and_exclude_venues(planner: Planner) -> None:
    two = [ARENA.venue_id, DOME.venue_id]
    assert planner.names(planner.plan(include_venues=two)) == ["Arena", "Dome"]
    assert planner.names(planner.plan(exclude_venues=two)) == ["Ballroom", "Cellar"]
    both = planner.plan(include_venues=two, exclude_venues=[DOME.venue_id])
    assert planner.names(both) == ["Arena"]


def test_a_request_goes_before_the_settings(planner: Planner) -> None:
    request = {"venues": [str(DOME.venue_id)]}
    run = planner.plan(request, exclude_venues=[DOME.venue_id])
    assert planner.names(run) == ["Dome"]


def test_a_request_for_a_venue_that_is_not_there_is_refused(planner: Planner) -> None:
    with pytest.raises(PermanentError, match=f"venues = {NOWHERE}: must be ids of open venues"):
        planner.plan({"venues": [str(NOWHERE)]})


def test_a_moment_in_the_future_is_refused(planner: Planner) -> None:
    with pytest.raises(PermanentError, match="lies in the future; allowed: up to now"):
        planner.plan(as_of=datetime.now(UTC) + timedelta(hours=1))


def test_a_venue_that_only_the_settings_know_is_told(planner: Planner) -> None:
    run = planner.plan(exclude_venues=[NOWHERE])
    assert run.source_faults == [
        f"setting exclude_venues names venue {NOWHERE}, which source.venues does not list"
    ]


def test_a_venue_without_a_tenant_is_left_out_and_told(
    planner: Planner, superuser: psycopg.Connection
) -> None:
    superuser.execute("INSERT INTO venues VALUES (%s, NULL, 'Nomad')", [NOWHERE])
    run = planner.plan()
    assert "Nomad" not in planner.names(run)
    assert run.source_faults == [f"venue Nomad ({NOWHERE}) has no tenant: left out"]


def test_a_venue_without_a_name_is_called_by_its_id(
    planner: Planner, superuser: psycopg.Connection
) -> None:
    superuser.execute("INSERT INTO venues VALUES (%s, %s, NULL)", [NOWHERE, SOUTH])
    assert str(NOWHERE) in planner.names(planner.plan())


def test_orders_at_unknown_venues_are_told(planner: Planner, superuser: psycopg.Connection) -> None:
    superuser.execute(
        "UPDATE orders SET venue_id = %s WHERE venue_id = %s", [NOWHERE, DOME.venue_id]
    )
    assert planner.plan().source_faults == [
        f"6 orders of tenant {SOUTH} are at venues that it does not have: left out"
    ]


def test_a_venue_that_is_no_longer_listed_has_gone_once_it_had_scores(
    planner: Planner, superuser: psycopg.Connection
) -> None:
    superuser.execute("DELETE FROM venues WHERE id = %s", [DOME.venue_id])
    assert len(planner.venues(planner.plan())) == 3
    superuser.execute("INSERT INTO venues VALUES (%s, %s, 'Dome')", [DOME.venue_id, DOME.tenant_id])
    planner.score()
    superuser.execute("DELETE FROM venues WHERE id = %s", [DOME.venue_id])
    gone = [venue for venue in planner.venues(planner.plan()) if venue.gone]
    assert gone == [Venue(DOME.venue_id, SOUTH, str(DOME.venue_id), gone=True)]


def test_a_venue_of_another_tenant_than_before_names_the_former_one(
    planner: Planner, superuser: psycopg.Connection
) -> None:
    planner.score()
    superuser.execute("UPDATE venues SET tenant_id = %s WHERE id = %s", [NORTH, DOME.venue_id])
    (dome,) = [v for v in planner.venues(planner.plan()) if v.venue_id == DOME.venue_id]
    assert (dome.tenant_id, dome.former_tenant_id) == (NORTH, SOUTH)


def test_a_source_that_lists_nothing_removes_nothing(
    planner: Planner, superuser: psycopg.Connection
) -> None:
    planner.score()
    superuser.execute("DELETE FROM venues")
    with pytest.raises(PermanentError, match="holds results of 4: nothing is removed"):
        planner.plan()
