"""What a command imports from others: each package costs every start of the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.databases import Database

from venue_analytics.demo.airflow import plain_environment

#: typer and what it imports itself.
TYPER = {"typer", "annotated_doc", "shellingham"}
#: typer reads ids and paths with pydantic, and so do our settings.
PYDANTIC = {
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "typing_inspection",
}
#: What lists something from the database: no Alembic, SQLAlchemy, redis or croniter.
LISTING = TYPER | PYDANTIC | {"psycopg", "psycopg_binary", "rich"}

#: Runs a command as `python -m` does; tells on standard error which packages it imported.
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
    """Name the packages of others that a command has imported when it ends well."""
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
def test_help_imports_what_reads_the_command_and_no_more(
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
