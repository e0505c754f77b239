"""All views and the history equal the oracles', whatever happens between nights."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.jobs.rfm_scoring.night_strategies import (
    ALWAYS,
    ChangesRules,
    Deed,
    Night,
    buys,
    nights,
    some_rules,
)
from tests.jobs.rfm_scoring.platform_nights import DAY, VENUES, Platform
from tests.jobs.rfm_scoring.rfm_oracle import Rules
from tests.jobs.rfm_scoring.scoring import PlatformHouse

pytestmark = pytest.mark.long


def test_any_sequence_of_nights_equals_the_oracles(platform_house: PlatformHouse) -> None:
    kinds: Counter[str] = Counter()

    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(
        rules=some_rules,
        overrides=st.dictionaries(st.sampled_from(VENUES), some_rules, max_size=2),
        first=st.lists(buys, max_size=12),
        then=st.lists(nights, min_size=4, max_size=7),
    )
    def check(
        rules: Rules, overrides: dict[UUID, Rules], first: list[Deed], then: list[Night]
    ) -> None:
        at = Platform(platform_house)
        of_venues = [ChangesRules(own, VENUES.index(venue)) for venue, own in overrides.items()]
        beginning = [ChangesRules(rules, None), *of_venues, *ALWAYS, *first]
        for night in [Night(beginning, DAY, "by the schedule"), *then]:
            night.do(at)
        # a night of all venues, because the last one may have been limited
        end = max([at.last, *(as_of for as_of, _, _ in at.done.values())]) + DAY
        at.night(end)
        at.building_again_changes_nothing(end)
        kinds.update(row["kind"] for history in at.histories.values() for row in history.rows)

    check()
    # otherwise the test would have checked little
    assert min(kinds["movement"], kinds["rules"]) >= 10, kinds
