"""The docs say what is true of the code."""

import json
import re
from pathlib import Path

import pytest

from venue_analytics.jobs import JOBS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_every_setting_stands_in_the_docs_with_its_default_and_meaning(job):
    text = (ROOT / "docs" / f"{job.name.replace('_', '-')}.md").read_text()
    for name, field in job.settings.model_fields.items():
        row = f"| `{name}` | `{json.dumps(field.default)}` | {field.description}"
        assert row in text, f"docs lack or misstate {name}: {row}"


def test_every_direct_dependency_has_a_reason():
    reasons = (ROOT / "docs/dependencies.md").read_text()
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / file).read_text().splitlines():
            if match := re.match(r"([a-z0-9-]+)(\[\w+\])?==", line):
                name = match[1].removeprefix("apache-airflow-providers")
                assert name in reasons, f"docs/dependencies.md gives no reason for {match[1]}"


def test_every_local_link_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
