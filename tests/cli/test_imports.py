"""The third-party packages that a command imports; each one slows every start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.databases import Database

from venue_analytics.demo.airflow import plain_environment

#: typer and its own imports.
TYPER = {"typer", "annotated_doc", "shellingham"}
#: typer parses ids and paths with pydantic, as our settings do.
PYDANTIC = {
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "typing_inspection",
}
#: The packages of a command that lists rows: no Alembic, SQLAlchemy, redis or croniter.
LISTING = TYPER | PYDANTIC | {"psycopg", "psycopg_binary", "rich"}

#: Runs a command as `python -m` does; writes the packages that it imported to standard error.
SCRIPT = """
import json, runpy, sys
at_start = set(sys.modules)
try:
    runpy.run_module("venue_analytics", run_name="__main__")
finally:
    names = {name.partition(".")[0] for name in sys.modules.keys() - at_start}
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in names}
    print(json.dumps(files), file=sys.stderr)
"""


def packages_of(*command: str, **environment: str) -> set[str]:
    """Return the third-party packages that a command that succeeds has imported."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command],
        env=plain_environment() | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    files = json.loads(ended.stderr)
    return {name for name, file in files.items() if file and "site-packages" in Path(file).parts}


@pytest.mark.parametrize(
    ("command", "allowed"),
    [(("--help",), TYPER), (("history", "--help"), TYPER | PYDANTIC)],
    ids=["--help", "history --help"],
)
def test_help_imports_only_what_parses_the_command(
    command: tuple[str, ...], allowed: set[str]
) -> None:
    assert packages_of(*command) <= allowed


@pytest.mark.one_version
@pytest.mark.parametrize(
    "command", [("history",), ("history", "rfm_scoring"), ("venues",)], ids=" ".join
)
def test_a_list_imports_neither_migrations_nor_redis(
    simple: Database, command: tuple[str, ...]
) -> None:
    found = packages_of(*command, AIRFLOW_CONN_ANALYTICS_DB=simple.uri("analytics_jobs"))
    assert found <= LISTING
