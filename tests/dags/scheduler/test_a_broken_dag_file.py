"""A DAG file that cannot be read, as `make run` sees it when it waits for the file's DAG."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.dags.scheduler.stack import JOB, Stack

from venue_analytics.demo.airflow import AirflowError, Dag
from venue_analytics.demo.scoring_run import wait_for_dag

UNREADABLE_ONCE = """
from pathlib import Path
from airflow.sdk.exceptions import AirflowTaskTimeout
if not (tried := Path(__file__).with_suffix(".tried")).exists():
    tried.touch()
    raise AirflowTaskTimeout("DagBag import timeout")
"""


@pytest.fixture
def dag_file(stack: Stack) -> Iterator[Path]:
    """The DAG file of rfm_scoring; mended afterwards."""
    file = stack.dags / f"{JOB}.py"
    text = file.read_text()
    yield file
    file.write_text(text)
    read_anew(stack)


def read_anew(stack: Stack) -> Dag:
    """Wait as `make run` does, with the file read again as soon as it has been read."""
    token = stack.rest.get(f"/api/v2/dags/{JOB}").json()["file_token"]

    def hurry() -> None:
        stack.processes.check()
        stack.rest.put(f"/api/v2/parseDagFile/{token}")

    return wait_for_dag(stack.api, JOB, datetime.now(UTC), hurry)


def test_an_error_that_passes_is_waited_for_one_that_stays_is_told_and_a_mended_one_is_forgotten(
    stack: Stack, dag_file: Path
) -> None:
    good = dag_file.read_text()
    dag_file.write_text(f"{good}{UNREADABLE_ONCE}")
    read_anew(stack)
    assert dag_file.with_suffix(".tried").exists()

    dag_file.write_text(f"{good}rfm_scoring(\n")
    with pytest.raises(AirflowError, match=r"(?s)rfm_scoring\.py:.*'\(' was never closed"):
        read_anew(stack)

    dag_file.write_text(good)
    read_anew(stack)
