"""Each guard of the protocol is needed: without it, a property breaks in some world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.harness.interleavings import conftest
from tests.harness.interleavings.guards import GUARDS, Guard
from tests.harness.interleavings.properties import ViolationError
from tests.harness.interleavings.world import Servers, World

from venue_analytics.database import statements

pytestmark = pytest.mark.one_version
MOST_EPISODES = 400


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_without_a_guard_a_property_breaks(
    guard: Guard, world_servers: Servers, tmp_path: Path
) -> None:
    episode = _that_breaks(guard, world_servers, tmp_path)
    assert episode is not None, (
        f"without the guard, {MOST_EPISODES} episodes still hold: {guard.says}"
    )
    # the cut is the cause: with the guard, the same choices break nothing
    World(guard.scenario, world_servers, _chance(episode)).live()


def _that_breaks(guard: Guard, world_servers: Servers, directory: Path) -> int | None:
    """Return the first episode without the guard in which a property breaks."""
    options = {"clear_number_of": guard.clear_number_of} if guard.clear_number_of else {}
    with pytest.MonkeyPatch.context() as cutting:
        _forget_statements()
        for cut in guard.cuts:
            cut.make(cutting, directory)
        episodes = range(guard.first_episode, guard.first_episode + MOST_EPISODES)
        broken = (n for n in episodes if _breaks(guard, world_servers, n, options))
        episode = next(broken, None)
    _forget_statements()
    return episode


def _breaks(guard: Guard, world_servers: Servers, episode: int, options: dict[str, Any]) -> bool:
    world = World(guard.scenario, world_servers, _chance(episode), only=guard.breaks, **options)
    try:
        world.live()
    except ViolationError:
        return True
    return False


def _forget_statements() -> None:
    statements.statement.cache_clear()
    conftest.name_of.cache_clear()


def _chance(episode: int) -> Callable[[int], int]:
    return Random(episode).randrange  # noqa: S311  the same in every run
