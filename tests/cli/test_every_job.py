"""The command line with every job."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.cli.command_line import CommandLine, refusal
from tests.databases import Database
from tests.harness.simple_venues import fill
from tests.jobs.facts import facts_of

from venue_analytics.demo.servers import ValkeyServer
from venue_analytics.jobs import JOBS

pytestmark = [pytest.mark.one_version, pytest.mark.parametrize("job", JOBS)]
NIGHT = ("--as-of", "2026-02-01")


@pytest.fixture
def cli(simple: Database, valkey: ValkeyServer, tmp_path: Path) -> CommandLine:
    with simple.superuser() as superuser:
        fill(superuser)
    return CommandLine(tmp_path, simple, valkey)


@pytest.fixture
def ran(cli: CommandLine, job: str) -> CommandLine:
    """Return the command line after a night."""
    assert cli("run", job, *NIGHT).code == 0
    return cli


def kept(database: Database, job: str) -> dict[str, int]:
    """Return the number of rows in each of a job's tables."""
    with database.superuser() as superuser:
        counts = {table: _count(superuser, table) for table in facts_of(job).tables}
    return {table: count for table, count in counts.items() if count}


def _count(superuser: psycopg.Connection, table: str) -> int:
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
    (count,) = superuser.execute(query).fetchone() or (0,)
    return int(count)


def test_a_night_keeps_rows_and_is_shown_and_listed(
    cli: CommandLine, simple: Database, job: str
) -> None:
    ran = cli("run", job, *NIGHT)
    assert (ran.code, ran.err) == (0, "")
    assert f"{job} as of 2026-02-01 00:00:00 UTC" in ran.out
    assert kept(simple, job) == facts_of(job).first_night
    shown = cli("show-run", job)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out in ran.out
    (run,) = [line for line in cli("history", job).out.splitlines() if line.startswith("cli__")]
    assert run.endswith("✓ done")


def test_the_top_rows_are_shown_if_a_job_has_them(ran: CommandLine, job: str) -> None:
    ended = ran("show-run", job, "--top", "1")
    if JOBS[job].top is None:
        assert f"{job} has nothing to show with --top" in refusal(ended)
    else:
        assert (ended.code, ended.err) == (0, "")
        assert len(ended.out) > len(ran("show-run", job).out)


def test_a_dry_run_reports_what_would_change_if_a_job_has_a_preview(
    ran: CommandLine, simple: Database, job: str
) -> None:
    before = kept(simple, job)
    dry_run = facts_of(job).dry_run
    assert (dry_run is None) is (JOBS[job].preview is None)
    if dry_run is None:
        words = "dry_run = 'True': is not a parameter of this run"
        assert words in refusal(ran("run", job, "--dry-run"))
        return
    (ran.folder / "tried.json").write_text(json.dumps(dict(dry_run.settings)))
    ended = ran("run", job, "--dry-run", "--settings", "tried.json")
    assert (ended.code, ended.err) == (0, "")
    assert "Nothing was written." in ended.out
    assert kept(simple, job) == before


def test_a_jobs_own_setting_that_is_not_allowed_is_refused(
    cli: CommandLine, simple: Database, job: str
) -> None:
    variable = f"AIRFLOW_VAR_{job.upper()}"
    for values, words in facts_of(job).wrong_settings:
        assert words in refusal(cli("run", job, **{variable: json.dumps(dict(values))}))
    assert kept(simple, job) == {}
