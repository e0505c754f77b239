"""The command line: everything except the schedule, without Airflow.

Commands import their dependencies when they run, which keeps the others fast.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import UUID

import typer

if TYPE_CHECKING:
    import psycopg
    from rich.console import Console
    from rich.progress import Progress

    from venue_analytics.harness import Job, JobSettings, Unit
    from venue_analytics.harness.dead_letters import DeadLetter
    from venue_analytics.harness.request import RunRequest

app = typer.Typer(
    name="venue_analytics",
    help="Run and inspect the analytics jobs of a ticketing platform.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
DATABASE = "AIRFLOW_CONN_ANALYTICS_DB"
#: The database with a login that may act as analytics_owner; if unset, DATABASE is used.
OWNER_DATABASE = "AIRFLOW_CONN_ANALYTICS_DB_OWNER"
REDIS = "AIRFLOW_CONN_ANALYTICS_REDIS"
#: The exit code of a process ended by SIGTERM.
STOPPED = 143
#: The most rows of a list.
MOST_ROWS = 10_000
#: PostgreSQL's largest bigint, and so the highest possible number of a letter.
MOST_BIGINT = 2**63 - 1


def _between(least: int, most: int) -> Callable[[int], int]:
    # the error of typer's own min and max has neither the value nor the other bound
    def check(number: int) -> int:
        if not least <= number <= most:
            raise typer.BadParameter(f"{number}: must be {least} to {most}")
        return number

    return check


JobName = Annotated[str, typer.Argument(help="The name of the job, as of its DAG.")]


@app.command()
def migrate(
    adapter: Annotated[
        str | None,
        typer.Option(help="platform, simple, csv, or the path of your own .sql file."),
    ] = None,
    currency: Annotated[
        str | None, typer.Option(help="ISO 4217 code, for sources without a currency.")
    ] = None,
) -> None:
    """Create or upgrade the tables, and define the source contract over yours."""
    from venue_analytics.database.connection import DatabaseAddress
    from venue_analytics.database.migrate import MigrationError
    from venue_analytics.database.migrate import migrate as bring_up_to_date

    address = DatabaseAddress.from_environment(OWNER_DATABASE, DATABASE)
    try:
        done = bring_up_to_date(address, adapter=adapter, currency=currency)
    except MigrationError as error:
        _fail(str(error))
    change = "is" if done.from_revision == done.to_revision else "is now"
    typer.echo(f"The database {change} at revision {done.to_revision}, adapter {done.adapter}.")
    if done.adapter == "simple":
        typer.echo(f"Amounts without a currency are taken as {done.currency} (--currency).")


@app.command()
def check_source() -> None:
    """Check the source contract against your data."""
    from venue_analytics.database.check_source import check_source as look_at_source
    from venue_analytics.report import print_source

    with _connect() as connection:
        report = look_at_source(connection)
    print_source(_console(), report)
    raise typer.Exit(bool(report.faults))


@app.command()
def load_orders(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="A CSV file with a header.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="The data set to replace; by default the file's name."),
    ] = None,
    customer_column: Annotated[str | None, typer.Option(help="The customer's key.")] = None,
    time_column: Annotated[str | None, typer.Option(help="An ISO date or time.")] = None,
    amount_column: Annotated[str | None, typer.Option(help="The amount paid.")] = None,
    venue_column: Annotated[
        str | None, typer.Option(help="The venue; without one, all rows are of one venue.")
    ] = None,
    tickets_column: Annotated[str | None, typer.Option(help="The number of tickets.")] = None,
    status_column: Annotated[str | None, typer.Option(help="Paid, cancelled, …")] = None,
    currency_column: Annotated[str | None, typer.Option(help="ISO 4217 code.")] = None,
    timezone: Annotated[str, typer.Option(help="IANA zone of times without an offset.")] = "UTC",
    currency: Annotated[str, typer.Option(help="Currency of amounts without one.")] = "USD",
    rejects: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="File for invalid rows; by default in the current directory."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one line of JSON for scripts.")
    ] = False,
) -> None:
    """Load your own purchases (adapter csv); invalid rows are reported and left out."""
    from venue_analytics.database.purchases import ColumnChoice
    from venue_analytics.database.purchases import load_orders as load_purchases
    from venue_analytics.report import print_load

    console = _console()
    choice = ColumnChoice(
        customer_column,
        time_column,
        amount_column,
        venue_column,
        tickets_column,
        status_column,
        currency_column,
    )
    rejects_file = rejects or Path(f"{file.stem}.rejects.csv")
    with _connect() as connection, _progress(console) as progress:
        task = progress.add_task(f"Loading {file.name}", total=None)
        report = load_purchases(
            connection,
            file,
            columns=choice,
            dataset=dataset,
            timezone=timezone,
            currency=currency,
            rejects=rejects_file,
            now=datetime.now(UTC),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        progress.remove_task(task)
    print_load(console, report, rejects_file, currency)
    if as_json:
        last = report.last_purchase.isoformat()
        typer.echo(json.dumps({"dataset": report.dataset, "last_purchase": last}))


@app.command()
def run(
    job: JobName,
    venue: Annotated[
        list[UUID] | None, typer.Option(help="Only this venue; may be repeated.")
    ] = None,
    tenant: Annotated[
        list[UUID] | None,
        typer.Option(help="Only this tenant, for a job by tenant; may be repeated."),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(help="Moment of the results (ISO, by default UTC); by default now."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace results of a later as_of.")] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option(help="A parameter specific to this job, as NAME=VALUE; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Report what would change, and write nothing.")
    ] = False,
    settings: Annotated[
        Path | None,
        typer.Option(help="With --dry-run: try the settings of this JSON file."),
    ] = None,
) -> None:
    """Run a job over its venues or tenants; exit 1 if one of them fails."""
    from venue_analytics.harness.request import RunRequest

    chosen = _job(job)
    if settings is not None and not dry_run:
        _fail("--settings requires --dry-run; a run uses the settings in force")
    units, others = (venue, tenant) if chosen.unit == "venue" else (tenant, venue)
    if others:
        _fail(f"{job} works by {chosen.unit}: use --{chosen.unit}")
    asked = {chosen.unit.plural: units or None, "as_of": as_of, "force": force}
    asked |= {"dry_run": True} if dry_run else {}
    request = RunRequest.read(asked | _own_parameters(chosen, parameter or []), chosen)
    done = _run(chosen, _settings_of(settings, chosen), request)
    raise typer.Exit(not done)


@app.command()
def show_run(
    job: JobName,
    run_id: Annotated[str | None, typer.Option(help="The run; by default the latest.")] = None,
    top: Annotated[
        int,
        typer.Option(
            callback=_between(0, MOST_ROWS),
            help="Also show the top rows of each tenant, such as its best customers: 0 to 10000.",
        ),
    ] = 0,
) -> None:
    """Show the results of a run by venue or tenant."""
    from venue_analytics.harness import history
    from venue_analytics.report import print_run, print_top

    chosen = _job(job)
    if top and chosen.top is None:
        _fail(f"{job} has nothing to show with --top")
    console = _console()
    with _connect() as connection:
        found = history.load_latest_run(connection, chosen.name, run_id)
        if found is None:
            which = "no run yet" if run_id is None else f"no run {run_id!r}"
            _fail(f"{job}: {which} in history")
        print_run(console, connection, found)
        if top and chosen.top is not None:
            print_top(console, connection, found, chosen.top, top)


@app.command()
def venues() -> None:
    """List the venues of the source with their ids."""
    from venue_analytics.harness.find_units import list_venues
    from venue_analytics.report import print_venues

    with _connect() as connection:
        print_venues(_console(), list_venues(connection))


@app.command(name="history")
def list_history(
    job: Annotated[str | None, typer.Argument(help="The job; by default all.")] = None,
    unit: Annotated[
        UUID | None,
        typer.Option(
            "--venue", "--tenant", help="List the attempts at this venue or tenant, not runs."
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(callback=_between(1, MOST_ROWS), help="Maximum number of rows: 1 to 10000."),
    ] = 20,
) -> None:
    """List the latest runs, or the attempts at one venue or tenant."""
    from venue_analytics.harness import history
    from venue_analytics.report import print_attempts, print_runs

    name = _job(job).name if job is not None else None
    with _connect() as connection:
        if unit is None:
            print_runs(_console(), history.list_runs(connection, name, limit))
        else:
            print_attempts(_console(), history.list_attempts(connection, unit, name, limit))


@app.command()
def check_settings(
    job: Annotated[str | None, typer.Argument(help="The job; by default all.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="airflow_settings.yaml, or <job>.json with the settings of one job."),
    ] = None,
) -> None:
    """Check the jobs' settings and pools in a file, the environment, or Airflow."""
    from venue_analytics.check_settings import check_settings_command

    raise typer.Exit(check_settings_command(_console(), job, file))


letters = typer.Typer(no_args_is_help=True, help="List, show, replay or discard dead letters.")
app.add_typer(letters, name="dead-letters")


@letters.command("list")
def list_letters(
    job: Annotated[str | None, typer.Option(help="The job; by default all.")] = None,
    ended: Annotated[
        bool, typer.Option("--all", help="Include resolved and discarded letters.")
    ] = False,
) -> None:
    """List open dead letters, the latest failure first."""
    from venue_analytics.harness import dead_letters
    from venue_analytics.report import print_letters

    if job is not None:
        _job(job)
    with _connect() as connection:
        print_letters(_console(), dead_letters.find(connection, job=job, ended=ended))


@letters.command("show")
def show_letter(letter: Annotated[int, typer.Argument(help="The letter's number.")]) -> None:
    """Show a letter with its error, traceback and payload."""
    from venue_analytics.harness import dead_letters
    from venue_analytics.report import print_letter

    with _connect() as connection:
        found = _letter(connection, letter)
        print_letter(_console(), found, dead_letters.payload(connection, found))


@letters.command("replay")
def replay_letters(
    letter: Annotated[list[int] | None, typer.Argument(help="The letters' numbers.")] = None,
    job: Annotated[str | None, typer.Option(help="All open letters of this job.")] = None,
) -> None:
    """Run the units of letters again, with the settings of the failed run.

    Settings in AIRFLOW_VAR_<JOB> take precedence. A letter is resolved when its unit succeeds.
    """
    from venue_analytics.harness import AnalyticsError, dead_letters

    if bool(letter) == (job is not None):
        _fail("give either letter numbers, or --job for all open letters of a job")
    with _connect() as connection:
        if job is not None:
            chosen = dead_letters.find(connection, job=_job(job).name)
        else:
            chosen = [_letter(connection, number) for number in dict.fromkeys(letter or ())]
        ended = [str(one.id) for one in chosen if not one.is_open]
        if ended:
            _fail(f"letter {', '.join(ended)}: has ended already; nothing was replayed")
        if messages := [str(one.id) for one in chosen if one.kind == "message"]:
            _fail(
                f"letter {', '.join(messages)}: its message belongs to no unit, so no run can "
                "repeat it; nothing was replayed"
            )
        runs = []
        for together in dead_letters.by_run(chosen):
            try:
                runs.append(_replay(connection, together))
            except AnalyticsError as error:
                numbers = ", ".join(str(one.id) for one in together)
                typer.echo(f"Error: letter {numbers}: {error}", err=True)
                runs.append(False)
    if not runs:
        typer.echo("No open letter.")
    raise typer.Exit(not all(runs))


@letters.command("discard")
def discard_letter(
    letter: Annotated[list[int], typer.Argument(help="The letters' numbers.")],
    reason: Annotated[str, typer.Option(help="The reason for discarding.")],
    by: Annotated[str, typer.Option(help="Who discards.")] = getpass.getuser(),
) -> None:
    """Discard letters, with a reason and a name; they stay in history."""
    from venue_analytics.harness import dead_letters

    if not reason.strip() or not by.strip():
        _fail(f"reason = {reason!r}, by = {by!r}: neither may be blank")
    with _connect() as connection:
        for found in [_letter(connection, number) for number in dict.fromkeys(letter)]:
            if not dead_letters.discard(connection, found, reason=reason, by=by):
                _fail(f"letter {found.id}: has ended already, {found.state}")
            typer.echo(f"Letter {found.id} ({found.unit_name or found.key}) is discarded.")


def main() -> None:
    """Run a command; print errors that the user can fix without a traceback."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    logging.getLogger("venue_analytics").setLevel(logging.CRITICAL)
    try:
        app()
    except Exception as error:
        message = _translate(error)
        if message is None:
            raise
        _fail(message)


def _translate(error: Exception) -> str | None:
    """Return the message of an error that the user can fix; None for any other error."""
    import psycopg

    from venue_analytics.database.purchases import LoadError
    from venue_analytics.database.server_address import BadConnectionError
    from venue_analytics.harness import AnalyticsError
    from venue_analytics.harness.database_errors import translate_error

    if isinstance(error, AnalyticsError | BadConnectionError | LoadError):
        return str(error)
    if not isinstance(error, psycopg.Error):
        return None
    missing = isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName)
    if missing and "jobs" in str(error.diag.message_primary):
        return "this database is not migrated: run `python -m venue_analytics migrate` first"
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return f"the database cannot be reached: {' '.join(str(error).split())}"
    return str(translate_error(error))


def _connect() -> psycopg.Connection:
    from venue_analytics.database.connection import DatabaseAddress, connect

    return connect(DatabaseAddress.from_environment(DATABASE))


def _settings(job: Job[Any], planned: dict[str, Any] | None = None) -> JobSettings:
    """Return a job's settings: those in the environment, else those of a run, else the defaults."""
    from venue_analytics.harness.settings import read_settings

    name = f"AIRFLOW_VAR_{job.name.upper()}"
    text = os.environ.get(name)
    source = f"of {name}"
    if text is None and planned is not None:
        text, source = json.dumps(planned), "of the run that failed"
    elif text is None:
        source = f"defaults ({name} is not set)"
    typer.echo(f"Settings: {source}")
    settings: JobSettings = read_settings(job.settings, text, name=f"Variable {name}")
    return settings


def _settings_of(file: Path | None, job: Job[Any]) -> JobSettings:
    """Return the settings in a file; without a file, those in force."""
    if file is None:
        return _settings(job)
    from venue_analytics.harness.settings import read_settings

    name = f"--settings {file}"
    try:
        # Windows editors may write a byte order mark
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        _fail(f"{name}: cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        _fail(f"{name}: must be UTF-8 text")
    if not text.strip():
        _fail(f'{name}: is empty; must be a JSON object such as {{"rule_set": "standard"}}')
    typer.echo(f"Settings: {file}")
    settings: JobSettings = read_settings(job.settings, text, name=name)
    return settings


def _run(job: Job[Any], settings: JobSettings, request: RunRequest) -> bool:
    """Run a job, print its progress and results; return whether every unit ended well."""
    from venue_analytics.command_line_run import run_job
    from venue_analytics.database.connection import DatabaseAddress, connect
    from venue_analytics.harness.interrupts import Stopped
    from venue_analytics.harness.leases import Leases
    from venue_analytics.harness.redis_server import RedisAddress
    from venue_analytics.report import print_run

    console = _console()
    address = DatabaseAddress.from_environment(DATABASE)
    leases = Leases(RedisAddress.from_environment(REDIS).client(), job.name)

    def open_connection() -> psycopg.Connection:
        return connect(
            address,
            application_name=f"venue_analytics {job.name}",
            statement_timeout_seconds=settings.timeout_minutes * 60,
        )

    with _progress(console) as progress:
        task = progress.add_task(job.name, total=None)

        def show(units: int, name: str | None, ended: str) -> None:
            progress.update(task, total=units, advance=0 if name is None else 1)
            if name is not None and not console.is_terminal:
                console.print(f"{name} {ended}", highlight=False, markup=False)

        def show_waiting(unit: Unit, why: str) -> None:
            console.print(f"{unit.name} {why}", highlight=False, markup=False)

        try:
            planned, unfinished = run_job(
                open_connection, leases, job, settings, request, show, show_waiting
            )
        except (KeyboardInterrupt, Stopped) as stop:
            typer.echo(
                f"Stopped. `dead-letters list` has the unfinished units: run again, or "
                f"`dead-letters replay --job {job.name}`.",
                err=True,
            )
            if isinstance(stop, Stopped):
                raise typer.Exit(STOPPED) from None
            raise
    with open_connection() as connection:
        print_run(console, connection, planned)
    return not unfinished


def _replay(connection: psycopg.Connection, together: list[DeadLetter]) -> bool:
    from venue_analytics.harness import dead_letters, history
    from venue_analytics.harness.request import RunRequest

    first = together[0]
    job = _job(first.job)
    failed = history.load_plan(connection, first.run)
    # The unit of an item or action ended well. It needs a new run, or if the job keeps every date,
    # a forced run for that date.
    is_inside = first.kind != "unit"
    request = RunRequest(
        units=sorted({letter.unit_id for letter in together if letter.unit_id is not None}),
        as_of=None if is_inside and not job.keeps_every_date else first.as_of,
        force=failed.force or (is_inside and job.keeps_every_date),
        parameters=job.parameters.model_validate_json(json.dumps(failed.parameters)),
    )
    for letter in together:
        dead_letters.begin_replay(connection, letter)
    try:
        return _run(job, _settings(job, failed.settings), request)
    finally:
        for letter in together:
            dead_letters.end_replay(connection, letter)


def _letter(connection: psycopg.Connection, number: int) -> DeadLetter:
    from venue_analytics.harness import dead_letters

    found = dead_letters.load(connection, number) if 0 < number <= MOST_BIGINT else None
    if found is None:
        _fail(f"letter {number}: does not exist; see `dead-letters list`")
    return found


def _own_parameters(job: Job[Any], texts: list[str]) -> dict[str, str]:
    """Parse NAME=VALUE for parameters that only this job has."""
    values = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            _fail(f"--parameter {text!r}: must be NAME=VALUE")
        if name not in job.parameters.model_fields:
            own = ", ".join(job.parameters.model_fields) or "none"
            _fail(f"--parameter {name}: is not a parameter of {job.name}; allowed: {own}")
        values[name] = value
    return values


def _job(name: str) -> Job[Any]:
    from venue_analytics.jobs import JOBS

    if name not in JOBS:
        _fail(f"job {name!r}: must be {', '.join(JOBS)}")
    return JOBS[name]


def _fail(message: str) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    sys.exit(1)


def _console() -> Console:
    from rich.console import Console

    # Without a terminal rich assumes 80 columns, which would cut the tables.
    return Console() if sys.stdout.isatty() else Console(width=160)


def _progress(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


if __name__ == "__main__":
    main()
