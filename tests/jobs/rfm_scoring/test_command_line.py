"""RFM scoring on the command line: segments, and who would move between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.cli.command_line import CommandLine, line_of
from tests.databases import Database
from tests.harness.simple_venues import VENUES, fill

from venue_analytics.demo.servers import ValkeyServer

pytestmark = pytest.mark.one_version
VARIABLE = "AIRFLOW_VAR_RFM_SCORING"


@pytest.fixture
def superuser(simple: Database) -> Iterator[psycopg.Connection]:
    with simple.superuser() as connection:
        fill(connection)
        yield connection


@pytest.fixture
def cli(
    simple: Database, superuser: psycopg.Connection, valkey: ValkeyServer, tmp_path: Path
) -> CommandLine:
    return CommandLine(tmp_path, simple, valkey)


def test_a_dry_run_prints_who_would_move_under_other_settings(
    cli: CommandLine, superuser: psycopg.Connection
) -> None:
    night = ("run", "rfm_scoring", "--as-of", "2026-02-01T00:00:00Z")
    assert cli(*night).code == 0
    (cli.folder / "new.json").write_text('{"rule_set": "standard"}')
    ended = cli("run", "rfm_scoring", "--dry-run", "--settings", "new.json")
    assert (ended.code, ended.err) == (0, "")
    assert "Settings: new.json" in ended.out
    # at each of four venues, the customers who bought twice at 20 and three times at 30
    assert line_of(ended, "Regular") == ["Regular", "Potential", "Loyalist", "8", "520.00", "USD"]
    assert "12 of 12 customers at 4 venues would move between segments." in ended.out
    assert superuser.execute("SELECT count(*) FROM customer_segment_change").fetchone() == (0,)
    assert "(dry run)" in cli("history", "rfm_scoring").out
    assert 'Settings tried: {"rule_set": "standard"}' in ended.out
    assert "Compared with what stands as of 2026-02-01 00:00:00 UTC" in ended.out
    assert "Nothing was written." in ended.out
    # the last run shown is the one that was not dry
    assert "as of 2026-02-01" in cli("show-run", "rfm_scoring").out
    same = cli("run", "rfm_scoring", "--dry-run")
    assert "0 of 12 customers at 4 venues would move between segments." in same.out


def test_a_run_by_the_standard_rules_lists_each_venue_and_truncates_no_number(
    cli: CommandLine,
) -> None:
    ended = cli("run", "rfm_scoring", **{VARIABLE: '{"rule_set": "standard"}'})
    assert ended.code == 0
    for venue in VENUES:
        assert f"✓ {venue.name}" in ended.out
    assert line_of(ended, "Segment") == ["Segment", "Customers", "Venues"]
    assert line_of(ended, "Champions")[-1] == "4"
    assert "…" not in ended.out
