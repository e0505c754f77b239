"""Plans on a real scheduler: they take the current settings and pack venues into tasks."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid5

import psycopg
import pytest
from tests.dags.scheduler.conftest import VARIABLES
from tests.dags.scheduler.history import History, break_venues
from tests.dags.scheduler.stack import JOB, Stack
from tests.harness.simple_venues import ARENA, NORTH, fill, mend

from venue_analytics.harness import Unit

LAST_NIGHT = "2026-03-01T02:00:00+00:00"


@pytest.fixture(autouse=True)
def restored_settings(stack: Stack) -> Iterator[None]:
    yield
    stack.set_variable(JOB, VARIABLES[JOB])


def set_settings(stack: Stack, **settings: object) -> None:
    stack.set_variable(JOB, VARIABLES[JOB] | settings)


def many_venues(superuser: psycopg.Connection, number: int) -> list[UUID]:
    """Add venues of one tenant, each with one customer who bought once."""
    ids = [uuid5(NORTH, f"venue {n}") for n in range(number)]
    superuser.execute(
        "INSERT INTO venues SELECT id, %s, 'Venue ' || n "
        "FROM unnest(%s::uuid[]) WITH ORDINALITY AS v (id, n)",
        [NORTH, ids],
    )
    superuser.execute("INSERT INTO users VALUES (%s)", [NORTH])
    superuser.execute(
        "INSERT INTO orders SELECT gen_random_uuid(), %s, %s, id, 'completed', 10, '2026-01-10' "
        "FROM unnest(%s::uuid[]) AS v (id)",
        [NORTH, NORTH, ids],
    )
    return ids


def frequency_scores(superuser: psycopg.Connection, venue: Unit) -> list[int]:
    rows = superuser.execute(
        "SELECT frequency_score FROM customer_rfm_scores WHERE venue_id = %s ORDER BY 1",
        [venue.id],
    )
    return [score for (score,) in rows]


@pytest.mark.fault("thresholds-edited")
@pytest.mark.deep
def test_after_thresholds_were_edited_a_triggered_run_scores_the_night_again(
    stack: Stack, superuser: psycopg.Connection, history: History
) -> None:
    fill(superuser, (ARENA,))
    stack.ended(stack.trigger(as_of=LAST_NIGHT))
    # the customers bought once, twice and three times
    assert frequency_scores(superuser, ARENA) == [1, 2, 2]
    set_settings(stack, frequency_purchases=[5, 3, 2, 1])
    noon = stack.trigger(as_of=LAST_NIGHT)
    assert stack.ended(noon).state == "success"
    assert history.reasons(noon) == {"Arena": "succeeded"}
    assert frequency_scores(superuser, ARENA) == [2, 3, 4]
    again = stack.trigger(as_of=LAST_NIGHT)
    assert stack.ended(again).state == "success"
    assert history.reasons(again) == {"Arena": "skipped: already done"}


@pytest.mark.fault("batch-cleared")
@pytest.mark.deep
def test_a_cleared_batch_does_its_failed_venues_or_all_if_none_failed(
    stack: Stack, superuser: psycopg.Connection, history: History
) -> None:
    ids = many_venues(superuser, 20)
    break_venues(superuser, ids[6:7])
    set_settings(stack, max_tasks=1)
    run_id = stack.trigger()
    assert stack.ended(run_id).state == "failed"
    (batch,) = set(stack.tasks(run_id)) - {"plan", "finish", "ended_well"}
    assert batch.startswith("20 venues: Venue 1, Venue 10, Venue 11, ")
    red = history.attempts(run_id)
    assert len(red) == 20
    assert [name for name, outcome in red if outcome == "failed"] == ["Venue 7"]

    mend(superuser)
    stack.clear(JOB, run_id)
    assert stack.ended(run_id).state == "success"
    green = history.attempts(run_id)
    assert green[20:] == [("Venue 7", "succeeded")]

    stack.clear(JOB, run_id, only_failed=False, task_ids=["score"])
    assert stack.ended(run_id).state == "success"
    assert sorted(history.attempts(run_id)[21:]) == sorted(
        (f"Venue {number}", "succeeded") for number in range(1, 21)
    )


@pytest.mark.fault("many-venues")
@pytest.mark.deep
def test_1500_venues_are_20_tasks_and_a_clear_does_only_the_three_that_failed(
    stack: Stack, superuser: psycopg.Connection, history: History
) -> None:
    ids = many_venues(superuser, 1500)
    # without known durations, a group is twenty neighbours by name
    by_name = sorted((f"Venue {number}", id_) for number, id_ in enumerate(ids, 1))
    broken = dict(by_name[0:60:20])
    break_venues(superuser, list(broken.values()))
    set_settings(stack, max_tasks=20)
    run_id = stack.trigger()
    assert stack.ended(run_id).state == "failed"
    batches = [task for task in stack.tasks(run_id).values() if task.mapped]
    assert len(batches) == 20
    assert [task.state for task in batches].count("failed") == 3
    assert len(history.attempts(run_id)) == 1500
    assert len(history.scored()) == 1497

    mend(superuser)
    stack.clear(JOB, run_id)
    assert stack.ended(run_id).state == "success"
    again = history.attempts(run_id)[1500:]
    assert sorted(again) == [(name, "succeeded") for name in sorted(broken)]
    assert len(history.scored()) == 1500
