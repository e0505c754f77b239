"""Batches: which venues share a mapped task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from venue_analytics.harness.job import Venue


@dataclass(frozen=True)
class Batch:
    """The venues of one mapped task."""

    number: int
    label: str
    venues: tuple[Venue, ...]


def pack(venues: Sequence[Venue], *, max_tasks: int) -> list[Batch]:
    """Give each venue a task of its own while there are few; else share tasks evenly.

    A tenant's venues share a task with another's only where there are more tenants than tasks.
    """
    ordered = sorted(venues, key=lambda venue: (venue.tenant_id, venue.name, venue.venue_id))
    by_tenant = [list(group) for _, group in groupby(ordered, key=lambda venue: venue.tenant_id)]
    if len(by_tenant) > max_tasks:
        by_tenant = [ordered]
    size = 1
    while sum(-(-len(group) // size) for group in by_tenant) > max_tasks:
        size += 1
    chunks = [
        tuple(group[start : start + size])
        for group in by_tenant
        for start in range(0, len(group), size)
    ]
    names = [venue.name for venue in ordered]
    return [Batch(number, _label(chunk, names), chunk) for number, chunk in enumerate(chunks)]


def _label(chunk: tuple[Venue, ...], names: list[str]) -> str:
    first = chunk[0]
    if len(chunk) > 1:
        return f"{len(chunk)} venues: {first.name} …"
    if names.count(first.name) > 1:
        return f"{first.name} ({str(first.venue_id)[:8]})"
    return first.name
