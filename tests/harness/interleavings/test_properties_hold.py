"""The properties of the protocol hold, whatever happens and in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from tests.harness.interleavings.scenarios import SCENARIOS, Scenario
from tests.harness.interleavings.world import Servers, World

pytestmark = pytest.mark.one_version


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_properties_hold(scenario: Scenario, world_servers: Servers) -> None:
    @settings(
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def episode(data: st.DataObject) -> None:
        world = World(scenario, world_servers, lambda limit: data.draw(st.integers(0, limit - 1)))
        try:
            world.live()
        finally:
            note("\n".join(world.trace))

    episode()
