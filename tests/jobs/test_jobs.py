"""Each job is found by its folder, and has the tests and facts that it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.jobs.facts import facts_of

import venue_analytics.jobs
from venue_analytics.harness.settings import JobSettings
from venue_analytics.jobs import JOBS

FOLDER = Path(venue_analytics.jobs.__file__).parent
of_every_job = pytest.mark.parametrize("job", JOBS)


def test_the_jobs_are_the_folders() -> None:
    folders = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    assert set(JOBS) == folders
    assert len(JOBS) == len(folders) > 0


def test_an_unknown_job_raises_a_key_error() -> None:
    assert "rfm" not in JOBS
    with pytest.raises(KeyError, match="rfm"):
        JOBS["rfm"]


@of_every_job
def test_a_job_is_named_like_its_folder_and_has_settings_and_a_unit(job: str) -> None:
    assert JOBS[job].name == job
    assert issubclass(JOBS[job].settings, JobSettings)
    assert JOBS[job].unit in ("venue", "tenant")


@of_every_job
def test_a_job_has_its_own_tests_beside_its_facts(job: str) -> None:
    assert list((Path(__file__).parent / job).glob("test_*.py"))
    assert set(facts_of(job).of_unit) | set(facts_of(job).first_night) <= set(facts_of(job).tables)
    assert (facts_of(job).dry_run is None) is (JOBS[job].preview is None)
