"""Two Airflows that do not know each other start the same night on the same database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.dags.scheduler.conftest import METADATA, VARIABLES
from tests.dags.scheduler.history import History, break_once, held
from tests.dags.scheduler.stack import Stack, running
from tests.databases import Database
from tests.harness.simple_venues import BALLROOM, CUSTOMERS_EACH, DOME, VENUES, fill

from venue_analytics.demo.servers import PostgresServer, ValkeyServer

pytestmark = pytest.mark.deep
NIGHT = "twin"
#: The mapped task of the Dome; the small venues of a tenant share one.
DOMES_TASK = "2 venues: Cellar, Dome"


@dataclass(frozen=True)
class Ended:
    """How one deployment's attempt at a venue ended."""

    deployment: str
    venue: str
    outcome: str
    reason: str | None


@pytest.fixture(scope="module")
def other(
    own_postgres: PostgresServer,
    valkey: ValkeyServer,
    stack: Stack,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """Yield the second deployment, with its own metadata database and scheduler."""
    directory = tmp_path_factory.mktemp(METADATA[1])
    with running(
        METADATA[1], directory, own_postgres, valkey, {NIGHT: VARIABLES[NIGHT]}, triggerer=False
    ) as started:
        yield started


@pytest.fixture
def night(
    stack: Stack, other: Stack, database: Database, history: History
) -> tuple[str, list[Ended]]:
    """Return the night after both have ended: the run's id, equal in both, and all attempts.

    Both work at the same time and meet at the Dome. The first attempt at the Ballroom fails.
    """
    fill(history.superuser)
    break_once(history.superuser, BALLROOM)
    other.work_on(database)
    both = (stack, other)
    with held(database, DOME):
        runs = {deployment.first_run(NIGHT).run_id for deployment in both}
        (run_id,) = runs
        for deployment in both:
            deployment.wait(
                "the task of the Dome",
                lambda at=deployment: at.states(run_id, NIGHT).get(DOMES_TASK) == "running",
            )
        stack.wait("one of them at the Dome", history.waiting_queries)
    for deployment in both:
        deployment.ended(run_id, NIGHT)
    rows = history.superuser.execute(
        "SELECT r.deployment::text, v.unit_name, v.outcome, v.reason FROM jobs.unit_run AS v "
        "JOIN jobs.run AS r ON r.id = v.run WHERE r.run_id = %s",
        [run_id],
    )
    return run_id, [Ended(*row) for row in rows]


@pytest.mark.fault("two-deployments")
def test_each_venue_is_scored_once_and_one_deployment_does_what_the_other_failed(
    stack: Stack, other: Stack, history: History, night: tuple[str, list[Ended]]
) -> None:
    run_id, attempts = night
    assert len({attempt.deployment for attempt in attempts}) == 2
    assert Counter((a.venue, a.outcome, a.reason) for a in attempts) == {
        ("Arena", "succeeded", None): 1,
        ("Arena", "skipped", "already done"): 1,
        ("Ballroom", "failed", None): 1,
        ("Ballroom", "succeeded", None): 1,
        ("Cellar", "succeeded", None): 1,
        ("Cellar", "skipped", "already done"): 1,
        ("Dome", "succeeded", None): 1,
        ("Dome", "skipped", "already done"): 1,
    }
    assert history.scored() == {venue.name: CUSTOMERS_EACH for venue in VENUES}
    states = {at: at.api.run(NIGHT, run_id).state for at in (stack, other)}
    assert sorted(states.values()) == ["failed", "success"]
    (red,) = [at for at, state in states.items() if state == "failed"]
    red.clear(NIGHT, run_id)
    assert red.ended(run_id, NIGHT).state == "success"
    assert history.reasons(run_id)["Ballroom"] == "skipped: already done"
    # written if the red run finished before the other did the venue; then resolved by the clear
    assert history.letters() in ([], [("Ballroom", "resolved")])
