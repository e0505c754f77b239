"""The settings that a DAG file is parsed with."""

from __future__ import annotations

import pytest

from venue_analytics.harness import Job, UnitResult, VenueSettings
from venue_analytics.orchestration import AirflowJob

pytestmark = pytest.mark.one_version


class OffByDefault(VenueSettings, defaults={"enabled": False}):
    """Settings of a job that is switched on by an edit."""


@pytest.mark.parametrize("text", ['{"retries": "x"}', '{"enabled": 1}', "["])
def test_a_fault_does_not_switch_on_a_job_that_is_off_by_default(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    steps = {"end": lambda _: UnitResult()}
    job = Job("off_by_default", OffByDefault, steps, lambda *_: 0, lambda *_: [])
    monkeypatch.setenv("AIRFLOW_VAR_OFF_BY_DEFAULT", text)
    parsed = AirflowJob(job)
    assert parsed.fault is not None
    assert not parsed.settings.enabled
