"""Texts that a person or a program may leave in the Variable of a job; most are wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from tests.jobs.facts import facts_of

from venue_analytics.harness import JobSettings
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

#: A venue, or a tenant where a job is by tenant.
VENUE = UUID("10000000-0000-4000-8000-000000000001")

#: Any characters at all, including controls and halves of surrogate pairs.
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
unit_ids = st.sampled_from([str(VENUE), str(VENUE).upper(), f"urn:uuid:{VENUE}", VENUE.hex])

Values = st.SearchStrategy[dict[str, Any]]


def texts_of(
    model: type[JobSettings], own: Mapping[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[str]:
    """Return texts for the Variable of a job.

    Args:
        model: its settings.
        own: allowed values for some of its own settings.
    """
    units = model.UNIT.plural
    names = st.sampled_from(list(model.model_fields))
    overrides = st.dictionaries(
        unit_ids | anything,
        st.dictionaries(names | anything, near_values | json_values, max_size=3) | json_values,
        max_size=3,
    )
    valid = st.fixed_dictionaries({}, optional=_allowed(model, own))
    return (
        _changed_in_one_place(valid, names)
        | _broken_in_one_place(valid)
        | st.builds(lambda values, others: json.dumps(values | {units: others}), valid, overrides)
        | st.dictionaries(names, near_values | json_values, max_size=5).map(json.dumps)
        | st.dictionaries(anything, json_values, min_size=1, max_size=40).map(json.dumps)
        | json_values.map(json.dumps)
        | anything
        | st.builds(
            lambda depth, piece: piece * depth, st.integers(1, 3000), st.sampled_from("[{")
        ).map(lambda text: f'{{"cron": {text}')
    )


def _allowed(
    model: type[JobSettings], own: Mapping[str, st.SearchStrategy[Any]]
) -> dict[str, st.SearchStrategy[Any]]:
    units = model.UNIT.plural
    extras = {name: model.model_fields[name].json_schema_extra for name in own}
    may_differ = {
        name: own[name]
        for name, extra in extras.items()
        if isinstance(extra, dict) and extra.get("per_unit")
    }
    return {
        "enabled": st.booleans(),
        "cron": st.sampled_from(["0 2 * * *", "*/15 * * * *", "30 4 * * 1-5", "0 0 29 2 *"]),
        "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
        "retries": st.integers(0, 20),
        "retry_delay_seconds": st.integers(1, 3600),
        "timeout_minutes": st.integers(1, 1440),
        "deadline_minutes": st.integers(1, 10_080),
        "pool": st.sampled_from(["default_pool", "venue_analytics", "Süd 2"]),
        f"max_parallel_{units}": st.integers(1, 1024),
        f"exclude_{units}": st.lists(st.just(str(VENUE)), max_size=1),
        units: st.dictionaries(
            unit_ids, st.fixed_dictionaries({}, optional=may_differ), max_size=1
        ),
        **own,
    }


@st.composite
def _changed_in_one_place(draw: st.DrawFn, valid: Values, names: st.SearchStrategy[str]) -> str:
    """Draw valid settings with one value changed, or with one unknown name."""
    values = draw(valid)
    values[draw(names | anything)] = draw(near_values | json_values)
    return json.dumps(values, ensure_ascii=draw(st.booleans()))


@st.composite
def _broken_in_one_place(draw: st.DrawFn, valid: Values) -> str:
    """Draw valid settings as JSON with one piece lost or replaced."""
    text = json.dumps(draw(valid))
    begin = draw(st.integers(0, len(text)))
    end = draw(st.integers(begin, min(len(text), begin + 5)))
    piece = draw(st.sampled_from(["", ",", "}", "{", "[", '"', "'", "NaN", "//", "\\u"]) | anything)
    return text[:begin] + piece + text[end:]


texts = texts_of(RfmScoringSettings, facts_of("rfm_scoring").settings)
