"""The deadline of a run: the lengths of its interval, and which runs are reported."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from venue_analytics.deadline import interval_lengths, report_missed

BEGIN = datetime(2026, 3, 1, 2, tzinfo=UTC)
END = BEGIN + timedelta(days=1)
DEADLINE = END + timedelta(minutes=120)


def context(**changes: Any) -> dict[str, Any]:
    """Return Airflow's context of a run that was queued at its interval's end and still runs."""
    run = {
        "dag_run_id": "scheduled__2026-03-02T02:00:00+00:00",
        "run_type": "scheduled",
        "state": "running",
        "data_interval_end": END.isoformat().replace("+00:00", "Z"),
        "queued_at": (END + timedelta(seconds=3)).isoformat(),
    }
    passed = changes.pop("deadline_time", DEADLINE)
    return {"dag_run": run | changes, "deadline": {"id": "1", "deadline_time": passed}}


def logged(caplog: pytest.LogCaptureFixture, context: dict[str, Any]) -> list[tuple[int, str]]:
    caplog.clear()
    asyncio.run(report_missed(job="rfm_scoring", deadline_minutes=120, context=context))
    return [(record.levelno, record.getMessage()) for record in caplog.records]


def test_a_missed_deadline_is_one_error_line_with_job_run_and_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = (
        "rfm_scoring: run scheduled__2026-03-02T02:00:00+00:00 has missed its deadline, "
        "2026-03-02T04:00+00:00 (120 minutes after the end of its interval); it is running"
    )
    assert logged(caplog, context()) == [(logging.ERROR, line)]
    as_text = context(deadline_time=DEADLINE.isoformat())
    assert logged(caplog, as_text) == [(logging.ERROR, line)]


@pytest.mark.parametrize(
    "changes",
    [
        {"run_type": "backfill"},
        {"run_type": "manual"},
        {"queued_at": (DEADLINE + timedelta(seconds=1)).isoformat()},
        {"deadline_time": DEADLINE - timedelta(hours=1)},
        {"deadline_time": DEADLINE + timedelta(hours=1)},
    ],
    ids=["backfill", "manual", "queued later", "a shorter interval's", "a longer interval's"],
)
def test_nothing_is_logged_for_other_runs_and_deadlines(
    caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    assert logged(caplog, context(**changes)) == []


@pytest.mark.parametrize(
    ("cron", "timezone", "hours"),
    [
        ("0 2 * * *", "UTC", [24]),
        ("*/30 * * * *", "UTC", [0.5]),
        ("30 2 * * *", "Europe/Berlin", [24, 23, 25]),
        ("0 2 * * 1-5", "UTC", [24, 72]),
        ("0 2 * * 1-5", "Europe/Berlin", [24, 72, 71, 73]),
        ("0 8-18 * * *", "UTC", [1, 14]),
        ("0 2 1 * *", "UTC", [31 * 24, 30 * 24, 28 * 24, 29 * 24]),
        ("0 2 29 2 *", "UTC", [1461 * 24]),
    ],
)
def test_the_interval_lengths_of_a_schedule_start_with_the_most_frequent(
    cron: str, timezone: str, hours: list[float]
) -> None:
    assert [length / timedelta(hours=1) for length in interval_lengths(cron, timezone)] == hours
