"""Batches: which venues share a mapped task."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any
from uuid import UUID

from venue_analytics.harness import groups
from venue_analytics.harness.job import Venue

#: Airflow keeps 250 characters of a mapped task's name; people read the first few.
LONGEST_LABEL = 100


@dataclass(frozen=True)
class Batch:
    """The venues of one mapped task, group by group, the longest group first."""

    number: int
    label: str
    venues: tuple[Venue, ...]


def pack(
    venues: Sequence[Venue],
    *,
    max_tasks: int | None,
    overrides: Mapping[UUID, Any] = MappingProxyType({}),
) -> list[Batch]:
    """Cut each tenant's venues into groups, and balance tasks of groups by duration.

    The longest group goes to the task that has least to do so far (LPT rule), so that a large venue
    is alone. Batches are numbered, and so begun, with the longest first. A tenant's groups share a
    task with another's only where there are more tenants than tasks.

    Args:
        venues: each with the seconds that it is expected to take.
        max_tasks: how many batches there may be; None, where nobody shares the work, makes one a
            tenant.
        overrides: the settings that differ by venue; a group has the same.
    """
    ordered = sorted(venues, key=lambda venue: (venue.tenant_id, venue.name, venue.venue_id))
    by_tenant = [
        _groups(list(of_tenant), overrides)
        for _, of_tenant in groupby(ordered, key=lambda venue: venue.tenant_id)
    ]
    max_tasks = max_tasks or max(len(by_tenant), 1)
    if len(by_tenant) > max_tasks:
        by_tenant = [[group for groups_of_tenant in by_tenant for group in groups_of_tenant]]
    loads = [sum(map(_seconds, groups_of_tenant)) for groups_of_tenant in by_tenant]
    chunks: list[list[Venue]] = []
    for groups_of_tenant, tasks in zip(by_tenant, _share(by_tenant, loads, max_tasks), strict=True):
        filled: list[tuple[float, int, list[Venue]]] = [(0.0, task, []) for task in range(tasks)]
        for group in sorted(groups_of_tenant, key=_seconds, reverse=True):
            load, task, chunk = filled[0]
            chunk += group
            heapq.heapreplace(filled, (load + _seconds(group), task, chunk))
        chunks += [chunk for _, _, chunk in sorted(filled, key=lambda entry: entry[1])]
    chunks.sort(key=_seconds, reverse=True)
    names = [venue.name for venue in ordered]
    return [
        Batch(number, _unique_label(chunk, names), tuple(chunk))
        for number, chunk in enumerate(chunks)
    ]


def label(venues: Sequence[Venue]) -> str:
    """Name venues: one by its name, several by their number and the first names."""
    names = ", ".join(venue.name for venue in venues)
    if len(names) > LONGEST_LABEL:
        names = names[:LONGEST_LABEL].rstrip(" ,") + " …"
    return names if len(venues) == 1 else f"{len(venues)} venues: {names}"


def _unique_label(chunk: Sequence[Venue], names: Sequence[str]) -> str:
    first = chunk[0]
    if len(chunk) == 1 and names.count(first.name) > 1:
        return f"{label(chunk)} ({str(first.venue_id)[:8]})"
    return label(chunk)


def _groups(venues: Sequence[Venue], overrides: Mapping[UUID, Any]) -> list[list[Venue]]:
    """Cut the venues of a tenant into groups, the longest venues first."""

    def alike(venue: Venue) -> Hashable | None:
        return groups.likeness(venue, overrides)

    ordered = sorted(venues, key=lambda venue: (str(alike(venue)), -groups.expected_seconds(venue)))
    return list(groups.cut(ordered, lambda venue: venue, alike))


def _seconds(venues: Sequence[Venue]) -> float:
    # no venue is free: a task's overhead is shared among few rather than many
    return sum(max(groups.expected_seconds(venue), 0.001) for venue in venues)


def _share(of_tenants: list[list[list[Venue]]], loads: list[float], max_tasks: int) -> list[int]:
    """Give each tenant a task, and the others one by one to whose tasks are fullest."""
    shares = [1] * len(of_tenants)
    fullest = [(-load, at) for at, load in enumerate(loads) if len(of_tenants[at]) > 1]
    heapq.heapify(fullest)
    for _ in range(max_tasks - len(of_tenants)):
        if not fullest:
            break
        _, at = fullest[0]
        shares[at] += 1
        if shares[at] < len(of_tenants[at]):
            heapq.heapreplace(fullest, (-loads[at] / shares[at], at))
        else:
            heapq.heappop(fullest)
    return shares
