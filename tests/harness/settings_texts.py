"""Texts that somebody, or some program, may leave in the Variable of a job; most are wrong."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

VENUE = UUID("10000000-0000-4000-8000-000000000001")
FIELDS = list(RfmScoringSettings.model_fields)

#: Any character at all, controls and halves of surrogate pairs among them.
anything = st.text(st.characters(exclude_categories=()) | st.sampled_from("\n\0\u2028\u202e\ud800"))
numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([-1, 0, 1, 21, 1440, 1025, 10**7, 2**63, 10**40, 10**200, 1e400, 3.0])
)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | anything,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=6,
)
bounds = st.lists(st.integers(-5, 200), min_size=3, max_size=5)
crons = st.text("0123456789*/,-LRHw#? ", max_size=12) | st.lists(
    st.sampled_from(["*", "0", "2", "30", "61", "*/5", "1-5", "5-1", "L", "mon", "1,2", "H", "29"]),
    min_size=4,
    max_size=6,
).map(" ".join)
near_values = (
    st.sampled_from([True, "3", "UTC", "Berlin", "EUR", "euro", "", " ", "default_pool", 3, 12])
    | bounds
    | crons
)
names = st.sampled_from(FIELDS)
venue_ids = st.sampled_from([str(VENUE), str(VENUE).upper(), f"urn:uuid:{VENUE}", VENUE.hex])
overrides = st.dictionaries(
    venue_ids | anything,
    st.dictionaries(names | anything, near_values | json_values, max_size=3) | json_values,
    max_size=3,
)

allowed: dict[str, st.SearchStrategy[Any]] = {
    "enabled": st.booleans(),
    "cron": st.sampled_from(["0 2 * * *", "*/15 * * * *", "30 4 * * 1-5", "0 0 29 2 *"]),
    "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
    "retries": st.integers(0, 20),
    "retry_delay_seconds": st.integers(1, 3600),
    "timeout_minutes": st.integers(1, 1440),
    "deadline_minutes": st.integers(1, 10_080),
    "max_parallel_venues": st.integers(1, 1024),
    "pool": st.sampled_from(["default_pool", "venue_analytics", "Süd 2"]),
    "exclude_venues": st.lists(st.just(str(VENUE)), max_size=1),
    "venues": st.dictionaries(
        venue_ids, st.fixed_dictionaries({"vip_min_total": st.integers(9, 15)}), max_size=1
    ),
    "lookback_days": st.none() | st.integers(1, 36_500),
    "currency": st.sampled_from([None, "EUR", "JPY"]),
}
valid = st.fixed_dictionaries({}, optional=allowed)


@st.composite
def changed_in_one_place(draw: st.DrawFn) -> str:
    """Valid settings with one value exchanged, or one name that is none."""
    values = draw(valid)
    values[draw(names | anything)] = draw(near_values | json_values)
    return json.dumps(values, ensure_ascii=draw(st.booleans()))


@st.composite
def broken_in_one_place(draw: st.DrawFn) -> str:
    """Valid settings as JSON, of which a piece is lost, or is something else."""
    text = json.dumps(draw(valid))
    begin = draw(st.integers(0, len(text)))
    end = draw(st.integers(begin, min(len(text), begin + 5)))
    piece = draw(st.sampled_from(["", ",", "}", "{", "[", '"', "'", "NaN", "//", "\\u"]) | anything)
    return text[:begin] + piece + text[end:]


texts = (
    changed_in_one_place()
    | broken_in_one_place()
    | st.builds(lambda values, venues: json.dumps(values | {"venues": venues}), valid, overrides)
    | st.dictionaries(names, near_values | json_values, max_size=5).map(json.dumps)
    | st.dictionaries(anything, json_values, min_size=1, max_size=40).map(json.dumps)
    | json_values.map(json.dumps)
    | anything
    | st.builds(
        lambda depth, piece: piece * depth, st.integers(1, 3000), st.sampled_from("[{")
    ).map(lambda text: f'{{"cron": {text}')
)
