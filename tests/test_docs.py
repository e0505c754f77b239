"""The docs agree with the code."""

import re
from pathlib import Path

import pytest
from pydantic import Field, create_model
from tests.chaos import faults

from venue_analytics.jobs import JOBS
from venue_analytics.settings_reference import PAGE, allowed, reference

ROOT = Path(__file__).parents[1]


def test_the_settings_reference_matches_the_code():
    assert PAGE.read_text() == reference(), "docs/settings.md is out of date: run `make docs`"


@pytest.mark.parametrize("job", JOBS)
def test_a_jobs_page_links_to_its_settings(job):
    assert f"](settings.md#{job})" in (ROOT / "docs" / f"{job.replace('_', '-')}.md").read_text()
    assert f"\n## {job}\n" in PAGE.read_text()


def test_a_settings_range_comes_from_the_model():
    model = create_model(
        "Model",
        share=(float | None, Field(0.5, ge=0.1, le=0.9)),
        switch=(bool, False),
        folder=(str, Field("a", min_length=1, max_length=9)),
        rule=(str, Field("a", json_schema_extra={"allowed": "a or b"})),
    )
    fields = model.model_json_schema()["properties"]
    assert {name: allowed(field) for name, field in fields.items()} == {
        "share": "0.1 to 0.9, or null",
        "switch": "true or false",
        "folder": "1 to 9 characters",
        "rule": "a or b",
    }


def test_a_setting_without_bounds_is_refused():
    with pytest.raises(ValueError, match="needs bounds on both sides"):
        allowed({"type": "integer", "minimum": 1})


def test_every_direct_dependency_has_a_reason():
    reasons = (ROOT / "docs/dependencies.md").read_text()
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / file).read_text().splitlines():
            if match := re.match(r"([a-z0-9-]+)(\[\w+\])?==", line):
                name = match[1].removeprefix("apache-airflow-providers")
                assert name in reasons, f"docs/dependencies.md has no reason for {match[1]}"


def test_every_local_link_has_a_target():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_faults_in_the_table_are_those_that_tests_provoke():
    provoked = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r'mark\.fault\("([a-z-]+)"\)', file.read_text())
    }
    assert provoked == set(faults())
