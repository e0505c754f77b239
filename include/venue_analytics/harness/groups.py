"""Groups: venues of one tenant that share a transaction, and what becomes of one that fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg

from venue_analytics.harness.errors import TransientError
from venue_analytics.harness.job import Venue

#: A group is expected to take no longer than this, in seconds; a larger venue is one by itself.
SECONDS = 2.0
MOST = 50
#: What a venue is expected to take that was never done, in seconds.
UNMEASURED = SECONDS / 20
#: A statement of a group, or of a venue that others wait for, may take so many times what the whole
#: is expected to, but not less than the shortest limit.
PATIENCE = 10
SHORTEST_LIMIT = timedelta(seconds=30)
#: A venue that was cut may take so many times longer when its turn comes again.
PATIENCE_GROWS = 4
#: A group may exceed what it is expected to take while it has no more venues than this, each of
#: them small: what a transaction costs by itself is booked on its venues, and fewer of them would
#: each be booked more, night by night.
FEWEST = 10
SMALL = SECONDS / 4

T = TypeVar("T")


def expected_seconds(venue: Venue) -> float:
    """Return what a venue is expected to take."""
    return UNMEASURED if venue.expected_seconds is None else venue.expected_seconds


def likeness(venue: Venue, overrides: Mapping[UUID, Any]) -> Hashable | None:
    """Return what venues of a group have in common; None for one that shares no transaction.

    Args:
        venue: the venue.
        overrides: the settings that differ by venue.
    """
    if venue.gone or venue.former_tenant_id is not None:
        return None
    return venue.tenant_id, json.dumps(overrides.get(venue.venue_id), sort_keys=True, default=str)


def cut(
    items: Iterable[T], venue_of: Callable[[T], Venue], alike: Callable[[T], Hashable | None]
) -> Iterator[list[T]]:
    """Yield neighbours that are alike as groups; one whose likeness is None is alone."""
    group: list[T] = []
    seconds = 0.0
    group_likeness: Hashable | None = None
    for item in items:
        own, own_likeness = expected_seconds(venue_of(item)), alike(item)
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


def limit(venues: Iterable[Venue]) -> timedelta:
    """Return how long a statement of a group may take."""
    return max(SHORTEST_LIMIT, PATIENCE * timedelta(seconds=sum(map(expected_seconds, venues))))


def may_be_one_venues(error: Exception) -> bool:
    """Return whether one venue may have failed its group, so that each is done by itself.

    Else each would fail alike: Redis cannot be asked, the source is behind, the connection is gone,
    the server has no room.
    """
    if isinstance(error, TransientError):
        return False
    if not isinstance(error, psycopg.Error) or isinstance(error, psycopg.errors.QueryCanceled):
        return True
    if error.sqlstate is None:
        return not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate[:2] not in ("08", "53", "57")
