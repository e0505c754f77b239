"""The delay before a retry: it grows from retry to retry, and a clear resets it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.conftest import isolated_environment

#: Runs in a separate process, because Airflow warns when imported. Each line is a policy and a try.
ASK = """
import json, sys
from venue_analytics.orchestration import Backoff
for line in sys.stdin:
    retries, delay, try_number, max_tries = json.loads(line)
    policy = Backoff(retries, delay)
    seconds = [policy.evaluate(Exception(), try_number, max_tries).retry_delay.total_seconds()
               for _ in range(200)]
    print(min(seconds), max(seconds), len(set(seconds)))
"""
CASES = {
    "first": (3, 30, 1, 3),
    "second": (3, 30, 2, 3),
    "third": (3, 30, 3, 3),
    "after a clear of the second try": (3, 30, 3, 5),
    "more retries than ten minutes": (20, 30, 15, 20),
    "retries lowered meanwhile": (1, 30, 1, 3),
}


@pytest.fixture(scope="module")
def delays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    """Return the shortest and the longest of many delays of each case, in seconds."""
    asked = subprocess.run(
        [sys.executable, "-c", ASK],
        env=isolated_environment(
            tmp_path_factory.mktemp("backoff"), "postgresql+psycopg2://nobody@127.0.0.1:1/unused"
        ),
        input="\n".join(json.dumps(case) for case in CASES.values()),
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in asked.stdout.splitlines()[-len(CASES) :]]
    assert all(int(different) > 100 for _, _, different in rows)
    return {case: (float(row[0]), float(row[1])) for case, row in zip(CASES, rows, strict=True)}


@pytest.mark.parametrize(
    ("case", "longest"),
    [
        ("first", 30),
        ("second", 60),
        ("third", 120),
        ("after a clear of the second try", 30),
        ("more retries than ten minutes", 600),
        ("retries lowered meanwhile", 30),
    ],
)
def test_the_delay_doubles_with_each_retry_less_a_random_half(
    delays: dict[str, tuple[float, float]], case: str, longest: float
) -> None:
    low, high = delays[case]
    assert longest / 2 <= low < longest * 0.6
    assert longest * 0.9 < high <= longest
