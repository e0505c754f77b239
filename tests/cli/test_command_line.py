"""`python -m venue_analytics …`: its output and its exit codes."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from tests.cli.command_line import (
    CONNECTION,
    OWNER_CONNECTION,
    REDIS_CONNECTION,
    CommandLine,
    Ended,
    line_of,
    refusal,
)
from tests.databases import SIMPLE_TABLES, Database
from tests.harness.faults.night import wait_until
from tests.harness.simple_venues import (
    ARENA,
    FAULT,
    VENUES,
    break_venue,
    fill,
    mend,
    scored_customers,
)

from venue_analytics.demo.servers import ValkeyServer
from venue_analytics.jobs import JOBS

VARIABLE = "AIRFLOW_VAR_RFM_SCORING"
#: Refusals do not depend on the PostgreSQL version.
ONE_VERSION = pytest.mark.one_version
#: No server listens there.
NO_REDIS = "redis://:hunter2@127.0.0.1:1/0"
NOWHERE = "90000000-0000-4000-8000-000000000009"


@pytest.fixture
def venues(simple: Database) -> Database:
    """Return a migrated database with four venues."""
    with simple.superuser() as superuser:
        fill(superuser)
    return simple


@pytest.fixture
def cli(venues: Database, valkey: ValkeyServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, venues, valkey)


@pytest.fixture
def superuser(venues: Database) -> Iterator[psycopg.Connection]:
    with venues.superuser() as superuser:
        yield superuser


@pytest.mark.parametrize("arguments", [(), ("--help",)], ids=["nothing", "--help"])
def test_help_names_every_command(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = CommandLine(tmp_path, None).as_a_process(*arguments)
    for command in (
        "migrate",
        "check-source",
        "load-orders",
        "run",
        "show-run",
        "history",
        "check-settings",
        "dead-letters",
    ):
        assert command in ended.out + ended.err


def test_migrate_check_run_and_show_work_in_order_on_a_new_database(
    new_database: Callable[[str | None], Database], valkey: ValkeyServer, tmp_path: Path
) -> None:
    database = new_database(None)
    with psycopg.connect(database.uri("analytics_owner")) as connection:
        connection.execute(SIMPLE_TABLES)
    with database.superuser() as superuser:
        fill(superuser)
    cli = CommandLine(tmp_path, database, valkey)
    owner = {OWNER_CONNECTION: database.uri("analytics_owner")}

    migrated = cli("migrate", "--adapter", "simple", "--currency", "EUR", **owner)
    assert (migrated.code, migrated.err) == (0, "")
    assert migrated.out.startswith("The database is now at revision ")
    assert ", adapter simple.\nAmounts without a currency are taken as EUR" in migrated.out
    again = cli("migrate", **owner)
    assert again.out.startswith("The database is at revision ")

    checked = cli("check-source")
    assert (checked.code, checked.err) == (0, "")
    assert line_of(checked, "source.orders") == ["source.orders", "24"]
    assert "keeps the contract: 0 faults" in checked.out

    ran = cli("run", "rfm_scoring", "--as-of", "2026-02-01T00:00:00Z")
    assert (ran.code, ran.err) == (0, "")
    # Each venue has 1 × 10 + 2 × 20 + 3 × 30 = 140 from three customers.
    assert line_of(ran, "✓ Arena")[2] == "3"
    assert line_of(ran, "✓ Arena")[7:9] == ["140.00", "EUR"]
    assert "rfm_scoring as of 2026-02-01 00:00:00 UTC" in ran.out

    shown = cli("show-run", "rfm_scoring")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out in ran.out


def test_a_second_run_of_the_same_moment_finds_it_done_unless_forced(cli: CommandLine) -> None:
    night = ("run", "rfm_scoring", "--as-of", "2026-02-01T00:00:00Z")
    first, second, forced = cli(*night), cli(*night), cli(*night, "--force")
    # The last three columns are rows written, rows unchanged, and seconds.
    assert line_of(first, "✓ Arena")[-3:-1] == ["3", "0"]
    assert second.code == 0
    assert line_of(second, "– Arena")[2] == "skipped"
    assert "! Arena, Ballroom, Cellar, Dome: already done" in second.out
    assert line_of(forced, "✓ Arena")[-3:-1] == ["0", "3"]


def test_only_the_requested_venues_are_done(
    cli: CommandLine, superuser: psycopg.Connection
) -> None:
    assert cli("run", "rfm_scoring", "--venue", str(ARENA.id)).code == 0
    assert scored_customers(superuser) == {"Arena": 3}


def test_a_run_without_venues_succeeds_and_reports_that(
    simple: Database, valkey: ValkeyServer, tmp_path: Path
) -> None:
    ended = CommandLine(tmp_path, simple, valkey)("run", "rfm_scoring")
    assert (ended.code, ended.err) == (0, "")
    assert "No venues to do." in ended.out


def test_one_failing_venue_is_shown_and_the_others_are_done(
    cli: CommandLine, superuser: psycopg.Connection
) -> None:
    break_venue(superuser, ARENA)
    ended = cli.as_a_process("run", "rfm_scoring")
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert f"✗ Arena: RaiseException: {FAULT}" in ended.out
    assert scored_customers(superuser) == {"Ballroom": 3, "Cellar": 3, "Dome": 3}
    again = cli("show-run", "rfm_scoring")
    assert again.code == 0
    assert f"✗ Arena: RaiseException: {FAULT}" in again.out


@ONE_VERSION
@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [(signal.SIGTERM, 143, "stopped by SIGTERM"), (signal.SIGINT, 130, "stopped by Ctrl-C")],
)
def test_a_stopped_run_shows_how_to_continue(
    cli: CommandLine,
    venues: Database,
    superuser: psycopg.Connection,
    sent: signal.Signals,
    code: int,
    words: str,
) -> None:
    # a shell that runs the tests in the background makes them and their children ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with venues.superuser() as holder, holder.transaction():
        holder.execute("LOCK TABLE customer_rfm_state IN ACCESS EXCLUSIVE MODE")
        with cli.start("run", "rfm_scoring") as process:
            signal.signal(signal.SIGINT, before)
            wait_until(lambda: _waiting_for_lock(superuser), within=60)
            assert line_of(cli("show-run", "rfm_scoring"), "… Arena")[-1] == "running"
            process.send_signal(sent)
            _, err = process.communicate()
    assert process.returncode == code
    assert err.startswith("Stopped. `dead-letters list` has the unfinished units")
    assert "Traceback" not in err
    assert line_of(cli("history"), "cli__")[-1] == "failed"
    assert words in cli("dead-letters", "list").out


def _waiting_for_lock(superuser: psycopg.Connection) -> bool:
    row = superuser.execute(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    return row != (0,)


# dead letters and history ------------------------------------------------------------------


def test_a_failed_venue_has_a_letter_until_a_replay_has_done_it(
    cli: CommandLine, superuser: psycopg.Connection
) -> None:
    break_venue(superuser, ARENA)
    assert cli("run", "rfm_scoring", "--as-of", "2026-02-01").code == 1
    listed = cli("dead-letters", "list", "--job", "rfm_scoring")
    assert (listed.code, listed.err) == (0, "")
    assert line_of(listed, "  1  open")[2:7] == [
        "rfm_scoring",
        "Arena",
        "2026-02-01",
        "00:00",
        "1×",
    ]
    assert FAULT in listed.out
    assert "Ballroom" not in listed.out

    shown = cli("dead-letters", "show", "1")
    assert shown.code == 0
    assert f"Arena ({ARENA.id}), tenant {ARENA.tenant_id}" in shown.out
    assert "as of 2026-02-01 00:00:00 UTC" in shown.out
    assert FAULT in shown.out
    assert "File " in shown.out

    again = cli("dead-letters", "replay", "1")
    assert again.code == 1
    assert f"✗ Arena: RaiseException: {FAULT}" in again.out
    assert line_of(cli("dead-letters", "list"), "  1  open")[6] == "2×"

    mend(superuser)
    replayed = cli("dead-letters", "replay", "--job", "rfm_scoring")
    assert (replayed.code, replayed.err) == (0, "")
    assert "rfm_scoring as of 2026-02-01 00:00:00 UTC" in replayed.out
    assert line_of(replayed, "✓ Arena")[2] == "3"
    assert "Ballroom" not in replayed.out
    assert cli("dead-letters", "list").out == "No dead letters.\n"
    assert line_of(cli("dead-letters", "list", "--all"), "  1  resolved")[3] == "Arena"
    assert "letter 1: has ended already; nothing was replayed" in refusal(
        cli("dead-letters", "replay", "1")
    )
    none = cli("dead-letters", "replay", "--job", "rfm_scoring")
    assert (none.code, none.out) == (0, "No open letter.\n")


@ONE_VERSION
def test_a_replay_uses_the_settings_of_the_run_that_failed(
    cli: CommandLine, superuser: psycopg.Connection
) -> None:
    break_venue(superuser, ARENA)
    night = ("run", "rfm_scoring", "--as-of", "2026-02-01")
    assert cli(*night, **{VARIABLE: '{"vip_min_total": 14}'}).code == 1
    mend(superuser)
    assert cli("dead-letters", "replay", "1").code == 0
    attempts = superuser.execute(
        "SELECT r.settings ->> 'vip_min_total', r.as_of, a.outcome FROM jobs.unit_run AS a "
        "JOIN jobs.run AS r ON r.id = a.run WHERE a.unit_id = %s ORDER BY a.id",
        [ARENA.id],
    ).fetchall()
    as_of = datetime(2026, 2, 1, tzinfo=UTC)
    assert attempts == [("14", as_of, "failed"), ("14", as_of, "succeeded")]


@ONE_VERSION
def test_a_letter_is_discarded_with_a_reason_and_a_name(
    cli: CommandLine, superuser: psycopg.Connection
) -> None:
    break_venue(superuser, ARENA)
    assert cli("run", "rfm_scoring").code == 1
    # a number that is given twice is one letter
    discard = ("dead-letters", "discard", "1", "1", "--reason", "sold to a rival", "--by", "ada")
    discarded = cli(*discard)
    assert (discarded.code, discarded.out) == (0, "Letter 1 (Arena) is discarded.\n")
    assert cli("dead-letters", "list").out == "No dead letters.\n"
    assert "by ada: sold to a rival" in cli("dead-letters", "show", "1").out
    assert "letter 1: has ended already, discarded" in refusal(cli(*discard))
    assert "letter 1: has ended already" in refusal(cli("dead-letters", "replay", "1"))


def test_runs_and_the_attempts_at_a_venue_are_listed_latest_first(
    cli: CommandLine, superuser: psycopg.Connection
) -> None:
    assert cli("history").out == "No runs in history.\n"
    assert cli("history", "--venue", str(ARENA.id)).out == "No attempts in history.\n"
    break_venue(superuser, ARENA)
    assert cli("run", "rfm_scoring", "--as-of", "2026-02-01").code == 1
    mend(superuser)
    assert cli("run", "rfm_scoring", "--as-of", "2026-02-01", "--force").code == 0

    _, second, first = cli("history", "rfm_scoring").out.splitlines()
    # the numbers of venues: all, done, skipped, failed and left
    assert second.split()[-7:] == ["4", "4", "0", "0", "0", "✓", "done"]
    assert "(forced)" in second
    assert first.split()[-7:] == ["4", "3", "0", "1", "0", "✗", "failed"]

    venue = ("--venue", str(ARENA.id))
    second, first = attempts_in(cli("history", *venue))
    assert "✓ done" in second
    assert "✗ failed" in first
    assert "RaiseException: the" in first
    (only,) = attempts_in(cli("history", *venue, "--limit", "1"))
    assert "✓ done" in only


def attempts_in(ended: Ended) -> list[str]:
    """Return the first line of each row of a list of attempts; long names are folded."""
    return [line for line in ended.out.splitlines() if "rfm_scoring" in line]


# refusals ----------------------------------------------------------------------------------


@ONE_VERSION
def test_without_a_redis_connection_nothing_is_planned(
    venues: Database, superuser: psycopg.Connection, tmp_path: Path
) -> None:
    line = refusal(CommandLine(tmp_path, venues).as_a_process("run", "rfm_scoring"))
    assert f"no Redis given: set {REDIS_CONNECTION}" in line
    assert superuser.execute("SELECT count(*) FROM jobs.run").fetchone() == (0,)


@ONE_VERSION
def test_without_a_reachable_redis_nothing_is_planned(
    cli: CommandLine, superuser: psycopg.Connection
) -> None:
    line = refusal(cli("run", "rfm_scoring", **{REDIS_CONNECTION: NO_REDIS}))
    assert "Redis does not answer: " in line
    assert "hunter2" not in line
    assert superuser.execute("SELECT count(*) FROM jobs.run").fetchone() == (0,)


@ONE_VERSION
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "rfm"), f"job 'rfm': must be {', '.join(JOBS)}"),
        (("history", "rfm"), f"job 'rfm': must be {', '.join(JOBS)}"),
        (("dead-letters", "list", "--job", "rfm"), f"job 'rfm': must be {', '.join(JOBS)}"),
        (("dead-letters", "show", "7"), "letter 7: does not exist; see `dead-letters list`"),
        (("dead-letters", "replay"), "give either letter numbers, or --job for all open"),
        (("dead-letters", "replay", "7", "--job", "rfm_scoring"), "give either letter numbers"),
        (("dead-letters", "discard", "7", "--reason", " "), "neither may be blank"),
        (("show-run", "rfm"), f"job 'rfm': must be {', '.join(JOBS)}"),
        (("run", "rfm_scoring", "--as-of", "yesterday"), "as_of = 'yesterday': "),
        (
            (
                "run",
                "rfm_scoring",
                "--as-of",
                (datetime.now(UTC) + timedelta(days=2)).isoformat(),
            ),
            "lies in the future; allowed: up to now",
        ),
        (("run", "rfm_scoring", "--parameter", "colour"), "'colour': must be NAME=VALUE"),
        (
            ("run", "rfm_scoring", "--parameter", "colour=red"),
            "--parameter colour: is not a parameter of rfm_scoring; allowed: none",
        ),
        (("run", "rfm_scoring", "--venue", NOWHERE), f"venues = {NOWHERE}: must be ids of open"),
        (("show-run", "rfm_scoring"), "no run yet in history"),
        (("show-run", "rfm_scoring", "--run-id", "x"), "no run 'x' in history"),
        (("show-run", "rfm_scoring", "--run-id", ""), "no run '' in history"),
        (("dead-letters", "show", str(2**63)), f"letter {2**63}: does not exist"),
        (("dead-letters", "replay", str(2**63)), f"letter {2**63}: does not exist"),
        (
            ("dead-letters", "discard", str(2**63), "--reason", "sold"),
            f"letter {2**63}: does not exist",
        ),
    ],
    ids=[
        "unknown job",
        "unknown job of history",
        "unknown job of letters",
        "no such letter",
        "no letter to replay",
        "a letter and a job to replay",
        "no reason to discard",
        "unknown job to show",
        "bad as_of",
        "as_of in the future",
        "a parameter without a value",
        "unknown parameter",
        "venue not there",
        "no run yet",
        "no such run",
        "empty run id",
        "no letter of a number beyond all",
        "no letter of a number beyond all to replay",
        "no letter of a number beyond all to discard",
    ],
)
def test_arguments_that_are_not_allowed_are_refused_in_one_line(
    cli: CommandLine, arguments: tuple[str, ...], words: str
) -> None:
    assert words in refusal(cli(*arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("show-run", "rfm_scoring", "--top", "-3"),
            "'--top': -3: must be 0 to 10000",
        ),
        (
            ("show-run", "rfm_scoring", "--top", "10001"),
            "'--top': 10001: must be 0 to 10000",
        ),
        (("history", "--limit", "0"), "'--limit': 0: must be 1 to 10000"),
        (("history", "--limit", "10001"), "'--limit': 10001: must be 1 to 10000"),
        (("load-orders", ""), "'file': file '' is a directory"),
        (("load-orders", "a.csv", "--rejects", ""), "'--rejects': file '' is a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_error_of_a_useless_option_has_its_name_and_value(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    ended = CommandLine(tmp_path, None)(*arguments)
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(f"Error: Invalid value for {words}")


@ONE_VERSION
def test_an_empty_adapter_is_refused_instead_of_taken_as_the_current_one(
    venues: Database, tmp_path: Path
) -> None:
    owner = {OWNER_CONNECTION: venues.uri("analytics_owner")}
    line = refusal(CommandLine(tmp_path, None)("migrate", "--adapter", "", **owner))
    assert "adapter '': must be platform, simple, csv, or the path" in line


@ONE_VERSION
@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ('{"cron": ', f"Variable {VARIABLE} is not valid JSON"),
        ('{"vip_min_total": "12"}', f"Variable {VARIABLE}: vip_min_total = '12': Input should be"),
        ('{"colour": 1}', f"Variable {VARIABLE}: colour = 1: is not a setting of this job"),
    ],
)
def test_a_bad_variable_is_refused_in_one_line(
    cli: CommandLine, superuser: psycopg.Connection, variable: str, words: str
) -> None:
    assert words in refusal(cli("run", "rfm_scoring", **{VARIABLE: variable}))
    assert superuser.execute("SELECT count(*) FROM jobs.run").fetchone() == (0,)


def test_the_variable_is_honoured(cli: CommandLine, superuser: psycopg.Connection) -> None:
    settings = json.dumps(
        {"exclude_venues": [str(ARENA.id)], "regular_min_total": 4, "at_risk_min_total": 3}
    )
    assert cli("run", "rfm_scoring", **{VARIABLE: settings}).code == 0
    assert set(scored_customers(superuser)) == {venue.name for venue in VENUES} - {"Arena"}


@pytest.mark.parametrize(
    "arguments",
    [("run", "rfm_scoring"), ("show-run", "rfm_scoring"), ("check-source",), ("migrate",)],
    ids=" ".join,
)
def test_a_missing_connection_is_reported_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    line = refusal(CommandLine(tmp_path, None)(*arguments))
    assert f"no database given: set {CONNECTION}" in line


@pytest.mark.parametrize(
    "arguments",
    [("run", "rfm_scoring"), ("show-run", "rfm_scoring"), ("check-source",), ("migrate",)],
    ids=" ".join,
)
def test_a_missing_database_is_reported_in_one_line_without_the_password(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    nowhere = f"postgresql://jobs:hunter2@{quote(str(tmp_path), safe='')}/analytics"
    environment = {CONNECTION: nowhere, REDIS_CONNECTION: NO_REDIS}
    line = refusal(CommandLine(tmp_path, None)(*arguments, **environment))
    assert "the database cannot be reached" in line
    assert "hunter2" not in line


@ONE_VERSION
@pytest.mark.parametrize(
    "arguments",
    [("run", "rfm_scoring"), ("show-run", "rfm_scoring"), ("history",), ("dead-letters", "list")],
    ids=" ".join,
)
def test_a_database_without_our_tables_is_reported_in_one_line(
    new_database: Callable[[str | None], Database],
    valkey: ValkeyServer,
    tmp_path: Path,
    arguments: tuple[str, ...],
) -> None:
    assert "migrate" in refusal(CommandLine(tmp_path, new_database(None), valkey)(*arguments))


def test_check_source_of_a_database_without_our_views_names_the_fault(
    new_database: Callable[[str | None], Database], tmp_path: Path
) -> None:
    ended = CommandLine(tmp_path, new_database(None))("check-source")
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert "migrate" in ended.out + ended.err


def test_purchases_from_a_file_are_loaded_scored_and_shown_with_their_own_ids(
    new_database: Callable[[str | None], Database], valkey: ValkeyServer, tmp_path: Path
) -> None:
    file = tmp_path / "box office.csv"
    file.write_text(
        "Customer,Date,Amount,Venue\n"
        "ada,2025-03-01,10.00,Hall\n"
        "ada,2025-03-02,15.00,Hall\n"
        "ben,2025-03-03,twelve,Hall\n"
        "cleo,2025-03-04,7.50,Attic\n"
        "dora,never,3.00,Attic\n"
    )
    cli = CommandLine(tmp_path, new_database("csv"), valkey)

    loaded = cli("load-orders", str(file), "--currency", "EUR", "--json")
    assert (loaded.code, loaded.err) == (0, "")
    assert "5 rows, 3 loaded (3 new, 0 changed, 0 as before), 0 removed, 2 rejected" in loaded.out
    assert line_of(loaded, "   4")[:3] == ["4", "Amount", "twelve"]
    assert line_of(loaded, "   6")[:3] == ["6", "Date", "never"]
    assert json.loads(loaded.out.splitlines()[-1]) == {
        "dataset": "box office",
        "last_purchase": "2025-03-04T00:00:00+00:00",
    }
    with (tmp_path / "box office.rejects.csv").open(newline="") as rejects:
        rows = list(csv.reader(rejects))
    assert [(row[0], row[-1]) for row in rows[1:]] == [
        ("4", "ben,2025-03-03,twelve,Hall"),
        ("6", "dora,never,3.00,Attic"),
    ]

    assert cli("check-source").code == 0
    ran = cli("run", "rfm_scoring", "--as-of", "2025-03-05")
    assert ran.code == 0
    assert line_of(ran, "✓ Hall")[7:9] == ["25.00", "EUR"]
    shown = cli("show-run", "rfm_scoring", "--top", "1")
    assert line_of(shown, "ada")[:2] == ["ada", "Hall"]
    assert "cleo" not in shown.out


@ONE_VERSION
def test_a_missing_file_is_reported_in_one_line(
    new_database: Callable[[str | None], Database], tmp_path: Path
) -> None:
    cli = CommandLine(tmp_path, new_database("csv"))
    assert "nowhere.csv" in refusal(cli("load-orders", "nowhere.csv"))


@ONE_VERSION
def test_without_a_terminal_the_output_is_plain_lines(cli: CommandLine) -> None:
    ended = cli.as_a_process("run", "rfm_scoring", TERM="xterm-256color")
    assert "\x1b" not in ended.out
    assert "\r" not in ended.out
    lines = ended.out.splitlines()
    assert [line.split(":")[0] for line in lines if " rows read" in line] == [
        f"{venue.name} succeeded" for venue in VENUES
    ]
    assert max(map(len, ended.out.splitlines())) <= 160


@ONE_VERSION
def test_on_a_terminal_a_bar_shows_the_progress(cli: CommandLine) -> None:
    shown = cli.on_terminal("run", "rfm_scoring")
    assert "━" in shown
    assert "4/4" in shown
    assert "\x1b[" in shown
    assert "Arena succeeded" not in shown
    assert "✓" in shown


@ONE_VERSION
def test_a_venues_name_may_look_like_markup(
    simple: Database, valkey: ValkeyServer, tmp_path: Path
) -> None:
    with simple.superuser() as superuser:
        fill(superuser, (replace(ARENA, name="Club [/b] One"),))
        superuser.execute("INSERT INTO venues VALUES (gen_random_uuid(), NULL, 'No tenant [/red]')")
    command = CommandLine(tmp_path, simple, valkey)
    for arguments in (("check-source",), ("run", "rfm_scoring"), ("show-run", "rfm_scoring")):
        ended = command(*arguments)
        assert (ended.code, ended.err) == (0, "")
        assert "No tenant [/red]" in ended.out
    assert "Club [/b] One" in ended.out


@ONE_VERSION
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--settings", "new.json"), "--settings requires --dry-run"),
        (("--dry-run", "--force"), "dry_run compares with the current results"),
        (
            ("--dry-run", "--settings", "no.json"),
            "--settings no.json: cannot be read: No such file or directory",
        ),
        (
            ("--dry-run", "--settings", "bad.json"),
            "--settings bad.json: colour = 'red': is not a setting of this job",
        ),
        (("--dry-run", "--settings", "empty.json"), "--settings empty.json: is empty"),
        (("--dry-run", "--settings", "bytes.json"), "--settings bytes.json: must be UTF-8 text"),
        (("--dry-run", "--settings", "a.yaml"), "--settings a.yaml is not valid JSON"),
    ],
)
def test_an_option_that_a_dry_run_cannot_try_is_refused_in_one_line(
    cli: CommandLine, options: tuple[str, ...], words: str
) -> None:
    (cli.folder / "new.json").write_text("{}")
    (cli.folder / "bad.json").write_text('{"colour": "red"}')
    (cli.folder / "empty.json").write_text("\n")
    (cli.folder / "bytes.json").write_bytes(b"\x98\xff")
    (cli.folder / "a.yaml").write_text("rule_set: standard")
    assert words in refusal(cli("run", "rfm_scoring", *options))
