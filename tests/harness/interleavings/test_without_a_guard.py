"""Each guard of the protocol is needed: the worlds find what breaks without it."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from tests.harness.interleavings import conftest
from tests.harness.interleavings.guards import GUARDS, Guard
from tests.harness.interleavings.properties import ViolationError
from tests.harness.interleavings.world import Servers, World

from venue_analytics.database import statements

pytestmark = pytest.mark.parametrize("postgres", [18], ids=["postgres18"], indirect=True)
MOST_EPISODES = 400


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_without_a_guard_a_property_breaks(
    guard: Guard,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    options = {"clear_number_of": guard.clear_number_of} if guard.clear_number_of else {}
    statements.statement.cache_clear()
    try:
        for cut in guard.cuts:
            cut.make(monkeypatch, tmp_path)
        for number in range(1, MOST_EPISODES + 1):
            chance = Random(number).randrange  # noqa: S311  the same every time
            world = World(guard.scenario, servers, chance, only=guard.breaks, **options)
            try:
                world.live()
            except ViolationError as violation:
                print(f"{guard.name}: {number} episodes; {violation}")  # noqa: T201  pytest -rP shows it
                return
    finally:
        statements.statement.cache_clear()
        conftest.name_of.cache_clear()
    pytest.fail(f"{guard.says}: {MOST_EPISODES} episodes without it, and nothing broke")
