"""Facts about a job for the tests of every job: `tests/jobs/<job>/facts.py` defines its `FACTS`.

A test of all jobs is parametrized over `JOBS` and gets the rest from `facts_of`. A new job adds its
facts without a change to any test of all jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from typing import Any
from uuid import UUID, uuid5

from hypothesis import strategies as st

#: The tenant, venue and moment of plausible values.
TENANT = uuid5(UUID(int=0), "tenant")
VENUE = uuid5(UUID(int=0), "venue")
AS_OF = datetime(2024, 7, 1, tzinfo=UTC)

Row = dict[str, Any]


@dataclass(frozen=True)
class DryRun:
    """A dry run over the venues of `simple_venues` after a night.

    Attributes:
        settings: the settings to try.
        log: regular expressions that must each match the log of `finish`.
    """

    settings: Mapping[str, Any]
    log: Sequence[str]


@dataclass(frozen=True)
class JobFacts:
    """Facts about a job for the tests of every job.

    Attributes:
        tables: its tables in schema public; every column is a function of source, settings and
            as_of.
        views: the views that its migrations create in schema public for readers.
        rows: returns a plausible row of each table, by name, for a tenant, a unit, and a customer
            or whatever else has an id inside the unit.
        of_unit: the tables with a single row per unit, so that no second tenant has one.
        sql_values: a plausible value for each parameter of its statements that test_sql_files does
            not have.
        only_writes_its_tenant: its statements that take a tenant only to write it: they read no
            row, and cannot meet a row of another tenant where they write.
        messages: parts of its steps' statements, each sent for every unit, or once for a group; a
            worker is killed at each.
        first_night: the number of rows, by table, after a night over `simple_venues`.
        settings: allowed values for some of its own settings.
        wrong_settings: values that its own settings do not allow, each with the fault.
        dry_run: a dry run, if it has a preview.
    """

    tables: Sequence[str]
    rows: Callable[[UUID, UUID, UUID], Mapping[str, Row]]
    views: Sequence[str] = ()
    of_unit: Sequence[str] = ()
    sql_values: Mapping[str, Any] = field(default_factory=dict)
    only_writes_its_tenant: Sequence[str] = ()
    messages: Sequence[str] = ()
    first_night: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, st.SearchStrategy[Any]] = field(default_factory=dict)
    wrong_settings: Sequence[tuple[Mapping[str, Any], str]] = ()
    dry_run: DryRun | None = None


def facts_of(job: str) -> JobFacts:
    """Return the facts of a job."""
    facts: JobFacts = import_module(f"{__package__}.{job}.facts").FACTS
    return facts
