"""A DAG file that cannot be parsed while `make run` waits for its DAG."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.dags.scheduler.stack import JOB, Stack

from venue_analytics.demo.airflow import AirflowError, Dag
from venue_analytics.demo.job_run import wait_for_dag

UNREADABLE_ONCE = """
from pathlib import Path
from airflow.sdk.exceptions import AirflowTaskTimeout
if not (tried := Path(__file__).with_suffix(".tried")).exists():
    tried.touch()
    raise AirflowTaskTimeout("DagBag import timeout")
"""


@pytest.fixture
def dag_file(stack: Stack) -> Iterator[Path]:
    """Yield the DAG file of rfm_scoring; restore it afterwards."""
    file = stack.dags / f"{JOB}.py"
    text = file.read_text()
    yield file
    file.write_text(text)
    parse_again(stack)


def parse_again(stack: Stack) -> Dag:
    """Wait as `make run` does, but have the file parsed again at once."""
    token = stack.rest.get(f"/api/v2/dags/{JOB}").json()["file_token"]

    def hurry() -> None:
        stack.processes.check()
        stack.rest.put(f"/api/v2/parseDagFile/{token}")

    return wait_for_dag(stack.api, JOB, datetime.now(UTC), hurry)


def parse_twice(stack: Stack) -> None:
    """Wait twice: a parse that had begun before the file was written may end the first wait."""
    parse_again(stack)
    parse_again(stack)


def test_a_passing_error_is_waited_out_a_lasting_one_is_raised_and_a_fixed_one_is_forgotten(
    stack: Stack, dag_file: Path
) -> None:
    good = dag_file.read_text()
    dag_file.write_text(f"{good}{UNREADABLE_ONCE}")
    # a parse that had begun before the file was written ends a wait with the old file
    while not dag_file.with_suffix(".tried").exists():
        parse_again(stack)

    dag_file.write_text(f"{good}rfm_scoring(\n")
    with pytest.raises(AirflowError, match=r"(?s)rfm_scoring\.py:.*'\(' was never closed"):
        parse_twice(stack)

    dag_file.write_text(good)
    parse_again(stack)
