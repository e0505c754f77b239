"""What a job shows people of a run: figures by unit, tables and lines, not yet formatted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True)
class Column:
    """A figure of each unit, for the table of a run.

    Attributes:
        name: its heading.
        values: of the units that have one, by id.
        total: of all units; several lines are allowed.
    """

    name: str
    values: Mapping[UUID, str]
    total: str = ""


@dataclass(frozen=True)
class Table:
    """A table of its own.

    Attributes:
        columns: headings.
        rows: as long as the headings.
        numbers: the headings of columns of figures, which are set to the right.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """What people are shown of a run.

    Attributes:
        columns: beside the units.
        tables: below them.
        lines: below the tables, and in the log of finish.
    """

    columns: Sequence[Column] = field(default_factory=tuple)
    tables: Sequence[Table] = field(default_factory=tuple)
    lines: Sequence[str] = field(default_factory=tuple)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where that is right."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
