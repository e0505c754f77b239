"""A try that was cleared, and lives on, writes nothing over what a later plan has had done."""

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
    """Have a try of the old rules, forced, cleared and asleep, wake when the new ones are done."""
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


def test_a_forced_try_of_the_old_rules_does_not_undo_the_new_ones(
    new_world: Callable[[Run], World],
) -> None:
    overwrite(new_world(replace(FORCED, edit=2)))


def test_without_a_look_at_later_plans_it_would(
    new_world: Callable[[Run], World], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    PLANNED_ANEW.make(monkeypatch, tmp_path)
    with pytest.raises(ViolationError, match="P2"):
        overwrite(new_world(replace(FORCED, edit=2)))


def test_what_a_later_plan_has_had_done_is_not_done_again(
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
