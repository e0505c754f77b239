"""A try that was cleared but lives on does not overwrite the results of a later plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.harness.interleavings.guards import PLANNED_ANEW
from tests.harness.interleavings.properties import ViolationError
from tests.harness.interleavings.scenarios import FORCED, A, Run, Scenario
from tests.harness.interleavings.world import Servers, World

pytestmark = pytest.mark.one_version


@pytest.fixture
def new_world(world_servers: Servers) -> Iterator[Callable[[Run], World]]:
    worlds: list[World] = []

    def make(run: Run) -> World:
        worlds.append(
            World(Scenario("one run", (run,), faults=0, click_kinds="w"), world_servers, plain)
        )
        return worlds[-1]

    yield make
    for world in worlds:
        world.end()


def plain(_limit: int) -> int:
    return 0


def overwrite(world: World) -> None:
    """Wake a forced try of the old rules, cleared while asleep, after the new rules are done."""
    world.follow(
        "forced: plan starts",
        "forced plan try 1 …",
        "forced: batch 0 starts, try 1",
        "forced batch 0 try 1: reads its plan",
        "CLICK clear all of forced",
        "forced: plan starts",
        "forced plan try 2 …",
        "forced: batch 0 starts, try 2",
        "forced batch 0 try 2 …",
        "forced batch 0 try 1 …",
        "forced: finish starts",
        "forced finish …",
    )


def test_a_forced_try_of_the_old_rules_does_not_overwrite_the_new_ones(
    new_world: Callable[[Run], World],
) -> None:
    overwrite(new_world(replace(FORCED, edit=2)))


def test_a_forced_try_that_ignores_later_plans_overwrites_the_new_rules(
    new_world: Callable[[Run], World], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    PLANNED_ANEW.make(monkeypatch, tmp_path)
    with pytest.raises(ViolationError, match="P2"):
        overwrite(new_world(replace(FORCED, edit=2)))


def test_the_work_of_a_later_plan_is_not_done_again(
    new_world: Callable[[Run], World],
) -> None:
    new_world(A).follow(
        "A: plan starts",
        "A plan try 1 …",
        "A: batch 0 starts, try 1",
        "A batch 0 try 1 …",
        "CLICK clear all of A",
        "A: plan starts",
        "A plan try 2 …",
        "A: batch 0 starts, try 2",
        "A batch 0 try 2: reads its plan",
        "CLICK clear all of A",
        "A: plan starts",
        "A plan try 3 …",
        "A: batch 0 starts, try 3",
        "A batch 0 try 3 …",
        "A batch 0 try 2 …",
        "A: finish starts",
        "A finish …",
    )
