"""Tables fit the terminal: a narrow one shows fewer columns, and none is cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from venue_analytics.harness.history import RunSummary
from venue_analytics.report import print_runs

pytestmark = pytest.mark.one_version
NIGHT = datetime(2026, 11, 28, 2, tzinfo=UTC)
RUN = RunSummary(
    job="rfm_scoring",
    run_id=f"scheduled__{NIGHT.isoformat()}",
    as_of=NIGHT,
    force=False,
    dry_run=False,
    planned_at=NIGHT,
    finished_at=NIGHT + timedelta(seconds=29),
    outcome="succeeded",
    planned=10,
    succeeded=10,
    skipped=0,
    failed=0,
)


def printed(width: int) -> str:
    """Return the list of runs as a terminal of this width shows it."""
    console = Console(width=width, file=StringIO())
    print_runs(console, [RUN])
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", range(80, 180, 5))
def test_a_column_is_shown_whole_or_not_at_all(width: int) -> None:
    head, row, *_ = printed(width).splitlines()
    assert max(map(len, (head, row))) <= width
    assert head.split()[-1] == "Ended"
    assert row.rstrip().endswith("✓ done")
    assert "2026-11-28 02:00" in row


def test_a_wide_terminal_shows_all_columns() -> None:
    head = printed(160).splitlines()[0]
    for name in ("Run", "Job", "As of", "Planned", "Took", "Venues", "Left", "Ended"):
        assert name in head
    assert "Planned" not in printed(100)
