"""Batches: which venues share a mapped task."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from venue_analytics.harness.job import Venue

#: Airflow keeps 250 characters of a mapped task's name.
LONGEST_LABEL = 200


@dataclass(frozen=True)
class Batch:
    """The venues of one mapped task, the longest first."""

    number: int
    label: str
    venues: tuple[Venue, ...]


def pack(venues: Sequence[Venue], *, max_tasks: int | None) -> list[Batch]:
    """Give each venue a task of its own while there are few; else balance tasks by duration.

    Without `max_tasks` nobody shares the work: one batch a tenant.

    The longest venue goes to the task that has least to do so far (LPT rule), so that a large one
    is alone. A venue that was never done counts as the median of the others. Batches are
    numbered, and so begun, with the longest first.

    A tenant's venues share a task with another's only where there are more tenants than tasks.
    """
    ordered = sorted(venues, key=lambda venue: (venue.tenant_id, venue.name, venue.venue_id))
    known = [v.expected_seconds for v in ordered if v.expected_seconds is not None]
    unknown = median(known) if known else 1.0

    def seconds(venue: Venue) -> float:
        # no venue is free: a task's overhead is shared among few rather than many
        return max(unknown if venue.expected_seconds is None else venue.expected_seconds, 0.001)

    by_tenant = [list(group) for _, group in groupby(ordered, key=lambda venue: venue.tenant_id)]
    max_tasks = max_tasks or max(len(by_tenant), 1)
    if len(by_tenant) > max_tasks:
        by_tenant = [ordered]
    loads = [sum(map(seconds, group)) for group in by_tenant]
    chunks: list[list[Venue]] = []
    for group, tasks in zip(by_tenant, _share(by_tenant, loads, max_tasks), strict=True):
        filled: list[tuple[float, int, list[Venue]]] = [(0.0, task, []) for task in range(tasks)]
        for venue in sorted(group, key=seconds, reverse=True):
            load, task, chunk = filled[0]
            chunk.append(venue)
            heapq.heapreplace(filled, (load + seconds(venue), task, chunk))
        chunks += [chunk for _, _, chunk in sorted(filled, key=lambda entry: entry[1])]
    chunks.sort(key=lambda chunk: sum(map(seconds, chunk)), reverse=True)
    names = [venue.name for venue in ordered]
    return [
        Batch(number, _label(chunk, names), tuple(chunk)) for number, chunk in enumerate(chunks)
    ]


def _share(groups: list[list[Venue]], loads: list[float], max_tasks: int) -> list[int]:
    """Give each tenant a task, and the others one by one to whose tasks are fullest."""
    shares = [1] * len(groups)
    fullest = [(-load, at) for at, load in enumerate(loads) if len(groups[at]) > 1]
    heapq.heapify(fullest)
    for _ in range(max_tasks - len(groups)):
        if not fullest:
            break
        _, at = fullest[0]
        shares[at] += 1
        if shares[at] < len(groups[at]):
            heapq.heapreplace(fullest, (-loads[at] / shares[at], at))
        else:
            heapq.heappop(fullest)
    return shares


def _label(chunk: list[Venue], names: list[str]) -> str:
    return _named(chunk, names)[:LONGEST_LABEL]


def _named(chunk: list[Venue], names: list[str]) -> str:
    first = chunk[0]
    if len(chunk) > 1:
        return f"{len(chunk)} venues: {first.name} …"
    if names.count(first.name) > 1:
        return f"{first.name} ({str(first.venue_id)[:8]})"
    return first.name
