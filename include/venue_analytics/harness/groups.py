"""Groups: units of one tenant that share a transaction, and what happens when one fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg

from venue_analytics.harness.errors import TransientError
from venue_analytics.harness.unit import Unit

#: A group is expected to take no longer than this, in seconds; a larger unit is one by itself.
SECONDS = 2.0
MOST = 50
#: Seconds that a unit is expected to take that was never done.
UNMEASURED = SECONDS / 20
#: A statement of a group, or of a unit that others wait for, may take so many times what the whole
#: group is expected to take; the limit is never shorter than the shortest.
PATIENCE = 10
SHORTEST_LIMIT = timedelta(seconds=30)
#: After a unit was cut, its limit grows so many times.
PATIENCE_GROWS = 4
#: A group of small units may exceed SECONDS while it has no more units than this. The cost of a
#: transaction is shared by its units: with fewer, each would seem slower, night after night.
FEWEST = 10
SMALL = SECONDS / 4

T = TypeVar("T")


def expected_seconds(unit: Unit) -> float:
    """Return what a unit is expected to take."""
    return UNMEASURED if unit.expected_seconds is None else unit.expected_seconds


def likeness(unit: Unit, overrides: Mapping[UUID, Any]) -> Hashable | None:
    """Return what units of a group have in common; None for one that shares no transaction.

    Args:
        unit: the unit.
        overrides: the settings that differ by unit.
    """
    if unit.gone or unit.former_tenant_id is not None:
        return None
    return unit.tenant_id, json.dumps(overrides.get(unit.id), sort_keys=True, default=str)


def cut(
    items: Iterable[T], unit_of: Callable[[T], Unit], alike: Callable[[T], Hashable | None]
) -> Iterator[list[T]]:
    """Yield groups of neighbours that are alike; an item without a likeness is alone."""
    group: list[T] = []
    seconds = 0.0
    group_likeness: Hashable | None = None
    for item in items:
        own, own_likeness = expected_seconds(unit_of(item)), alike(item)
        is_member = own_likeness is not None and own_likeness == group_likeness
        are_few = len(group) < FEWEST and max(own, seconds / max(len(group), 1)) <= SMALL
        has_room = are_few or round(seconds + own, 6) <= SECONDS
        if group and not (is_member and len(group) < MOST and has_room):
            yield group
            group, seconds = [], 0.0
        group.append(item)
        seconds, group_likeness = seconds + own, own_likeness
    if group:
        yield group


def limit(units: Iterable[Unit]) -> timedelta:
    """Return how long a statement of a group may take."""
    return max(SHORTEST_LIMIT, PATIENCE * timedelta(seconds=sum(map(expected_seconds, units))))


def may_be_one_units(error: Exception) -> bool:
    """Return whether one unit may have failed its group, so that each is done by itself.

    Otherwise each would fail alike: Redis does not answer, the source is behind, the connection is
    lost, the server has no room.
    """
    if isinstance(error, TransientError):
        return False
    if not isinstance(error, psycopg.Error) or isinstance(error, psycopg.errors.QueryCanceled):
        return True
    if error.sqlstate is None:
        return not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate[:2] not in ("08", "53", "57")
