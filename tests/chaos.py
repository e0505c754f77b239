"""`make chaos`: prints the table of docs/faults.md with the results of its tests."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

TABLE = Path(__file__).parents[1] / "docs" / "faults.md"
ROW = re.compile(r"^\| `([a-z-]+)`: (.+?) \| (.+?) \| .+ \| .+ \|$", re.MULTILINE)

_names: dict[str, list[str]] = {}
_outcomes: dict[str, Counter[str]] = defaultdict(Counter)


def faults() -> dict[str, tuple[str, str]]:
    """Return the table: the fault and what happens, by the fault's name."""
    return {name: (fault, happens) for name, fault, happens in ROW.findall(TABLE.read_text())}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        _names[item.nodeid] = [name for mark in item.iter_markers("fault") for name in mark.args]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        for name in _names.get(report.nodeid, ()):
            _outcomes[name][report.outcome] += 1


def pytest_terminal_summary() -> None:
    table = Table(title="Faults", title_justify="left", show_lines=True)
    for column in ("Fault", "What happens"):
        table.add_column(column, overflow="fold", ratio=1)
    table.add_column("Tests", no_wrap=True)
    for name, (fault, happens) in faults().items():
        table.add_row(escape(fault), escape(happens), _result(_outcomes[name]))
    Console(width=None if Console().is_terminal else 120).print(table)


def _result(outcomes: Counter[str]) -> str:
    if outcomes["failed"]:
        return f"[red]✗ {outcomes['failed']} failed[/red]"
    if not outcomes["passed"]:
        return "[yellow]not run[/yellow]"
    return f"[green]✓ {outcomes['passed']} passed[/green]"
