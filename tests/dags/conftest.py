"""An Airflow of the tests' own, with its metadata in the tests' PostgreSQL."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from venue_analytics.demo.airflow import MIGRATE, plain_environment
from venue_analytics.demo.profile import ROOT
from venue_analytics.demo.servers import PostgresServer


def isolated_environment(home: Path, metadata: str) -> dict[str, str]:
    """What an Airflow process needs to know nothing of any other Airflow."""
    return plain_environment() | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


@pytest.fixture(scope="session")
def airflow_environment(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment of an Airflow whose metadata database is there and up to date."""
    postgres.prepare({"airflow": "airflow"})
    environment = isolated_environment(
        tmp_path_factory.mktemp("airflow"), postgres.uri("airflow", "airflow", "psycopg2")
    )
    migrated = subprocess.run(MIGRATE, env=environment, capture_output=True, text=True, check=False)
    assert migrated.returncode == 0, migrated.stderr[-2_000:]
    return environment
