"""Batches: which units share a mapped task."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any
from uuid import UUID

from venue_analytics.harness import groups
from venue_analytics.harness.unit import Unit

#: Airflow keeps 250 characters of a mapped task's name; people read the first few.
LONGEST_LABEL = 100


@dataclass(frozen=True)
class Batch:
    """The units of one mapped task, group by group, the longest group first.

    Attributes:
        number: from 0, within its run.
        label: shown to people.
        units: at least one.
        ended_well: whether its current round has ended well.
    """

    number: int
    label: str
    units: tuple[Unit, ...]
    ended_well: bool = False


def pack(
    units: Sequence[Unit],
    *,
    max_tasks: int | None,
    overrides: Mapping[UUID, Any] = MappingProxyType({}),
) -> list[Batch]:
    """Cut each tenant's units into groups, and balance tasks of groups by duration.

    The longest group goes to the task that has least to do so far (LPT rule), so that a large unit
    is alone. Batches are numbered, and so begun, with the longest first. A tenant's groups share a
    task with another's only where there are more tenants than tasks.

    Args:
        units: each with the seconds that it is expected to take.
        max_tasks: how many batches there may be; None, where nobody shares the work, makes one a
            tenant.
        overrides: the settings that differ by unit; a group has the same.
    """
    ordered = sorted(units, key=lambda unit: (unit.tenant_id, unit.name, unit.id))
    by_tenant = [
        _groups(list(of_tenant), overrides)
        for _, of_tenant in groupby(ordered, key=lambda unit: unit.tenant_id)
    ]
    max_tasks = max_tasks or max(len(by_tenant), 1)
    if len(by_tenant) > max_tasks:
        by_tenant = [[group for groups_of_tenant in by_tenant for group in groups_of_tenant]]
    loads = [sum(map(_seconds, groups_of_tenant)) for groups_of_tenant in by_tenant]
    chunks: list[list[Unit]] = []
    for groups_of_tenant, tasks in zip(by_tenant, _share(by_tenant, loads, max_tasks), strict=True):
        filled: list[tuple[float, int, list[Unit]]] = [(0.0, task, []) for task in range(tasks)]
        for group in sorted(groups_of_tenant, key=_seconds, reverse=True):
            load, task, chunk = filled[0]
            chunk += group
            heapq.heapreplace(filled, (load + _seconds(group), task, chunk))
        chunks += [chunk for _, _, chunk in sorted(filled, key=lambda entry: entry[1])]
    chunks.sort(key=_seconds, reverse=True)
    names = [unit.name for unit in ordered]
    return [
        Batch(number, _unique_label(chunk, names), tuple(chunk))
        for number, chunk in enumerate(chunks)
    ]


def label(units: Sequence[Unit]) -> str:
    """Name units: one by its name, several by their number and the first names."""
    names = ", ".join(unit.name for unit in units)
    if len(names) > LONGEST_LABEL:
        names = names[:LONGEST_LABEL].rstrip(" ,") + " …"
    return names if len(units) == 1 else f"{len(units)} {units[0].kind.plural}: {names}"


def _unique_label(chunk: Sequence[Unit], names: Sequence[str]) -> str:
    first = chunk[0]
    if len(chunk) == 1 and names.count(first.name) > 1:
        return f"{label(chunk)} ({str(first.id)[:8]})"
    return label(chunk)


def _groups(units: Sequence[Unit], overrides: Mapping[UUID, Any]) -> list[list[Unit]]:
    """Cut the units of a tenant into groups, the longest units first."""

    def alike(unit: Unit) -> Hashable | None:
        return groups.likeness(unit, overrides)

    ordered = sorted(units, key=lambda unit: (str(alike(unit)), -groups.expected_seconds(unit)))
    return list(groups.cut(ordered, lambda unit: unit, alike))


def _seconds(units: Sequence[Unit]) -> float:
    # no unit is free: a task's overhead is shared among few rather than many
    return sum(max(groups.expected_seconds(unit), 0.001) for unit in units)


def _share(of_tenants: list[list[list[Unit]]], loads: list[float], max_tasks: int) -> list[int]:
    """Assign each tenant a task, and the rest one by one to whoever's tasks are fullest."""
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
