"""The command line: everything but the schedule, without Airflow."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn
from uuid import UUID, uuid4

import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from venue_analytics.database.check_source import check_source as look_at_source
from venue_analytics.database.connection import DatabaseAddress, DatabaseConnectionError, connect
from venue_analytics.database.migrate import MigrationError
from venue_analytics.database.migrate import migrate as bring_up_to_date
from venue_analytics.database.purchases import ColumnChoice, LoadError
from venue_analytics.database.purchases import load_orders as load_purchases
from venue_analytics.harness import AnalyticsError, Job, Venue, history
from venue_analytics.harness.database_errors import in_words
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import RunKey
from venue_analytics.harness.plan import plan_run
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.settings import read_settings
from venue_analytics.jobs import JOBS
from venue_analytics.report import print_best_customers, print_load, print_run, print_source

app = typer.Typer(
    name="venue_analytics",
    help="Analytics jobs of a ticketing platform, venue by venue.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
DATABASE = "AIRFLOW_CONN_ANALYTICS_DB"
#: The database with a login that may act as analytics_owner; where it is the same, unset.
OWNER_DATABASE = "AIRFLOW_CONN_ANALYTICS_DB_OWNER"


@app.command()
def migrate(
    adapter: Annotated[
        str | None,
        typer.Option(help="platform, simple, csv, or the path of an .sql file of one's own."),
    ] = None,
    currency: Annotated[
        str | None, typer.Option(help="ISO 4217 code, for sources that name no currency.")
    ] = None,
) -> None:
    """Create or upgrade the tables, and point the source contract at yours."""
    done = bring_up_to_date(
        DatabaseAddress.from_environment(OWNER_DATABASE, DATABASE),
        adapter=adapter,
        currency=currency,
    )
    change = "is" if done.from_revision == done.to_revision else "is now"
    typer.echo(f"The database {change} at revision {done.to_revision}, adapter {done.adapter}.")
    if done.adapter == "simple":
        typer.echo(f"Amounts that name no currency are taken as {done.currency} (--currency).")


@app.command()
def check_source() -> None:
    """Check the source contract against your data, in plain words."""
    with connect(DatabaseAddress.from_environment(DATABASE)) as connection:
        report = look_at_source(connection)
    print_source(_console(), report)
    raise typer.Exit(bool(report.faults))


@app.command()
def load_orders(
    file: Annotated[Path, typer.Argument(help="A CSV file with a header.")],
    dataset: Annotated[
        str | None, typer.Option(help="Its name; by default the file's. Loading again replaces it.")
    ] = None,
    customer_column: Annotated[str | None, typer.Option(help="Who bought.")] = None,
    time_column: Annotated[str | None, typer.Option(help="When: an ISO date or time.")] = None,
    amount_column: Annotated[str | None, typer.Option(help="For how much.")] = None,
    venue_column: Annotated[str | None, typer.Option(help="Where; without one, one venue.")] = None,
    tickets_column: Annotated[str | None, typer.Option(help="How many tickets.")] = None,
    status_column: Annotated[str | None, typer.Option(help="Paid, cancelled, …")] = None,
    currency_column: Annotated[str | None, typer.Option(help="ISO 4217 code.")] = None,
    timezone: Annotated[str, typer.Option(help="IANA zone of times that name none.")] = "UTC",
    currency: Annotated[str, typer.Option(help="Of amounts that name none.")] = "USD",
    rejects: Annotated[
        Path | None, typer.Option(help="Where bad rows go; by default beside you.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one line of JSON for programs.")
    ] = False,
) -> None:
    """Load your own purchases (adapter csv); bad rows are named, the rest is loaded."""
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
    with (
        connect(DatabaseAddress.from_environment(DATABASE)) as connection,
        _progress(console) as progress,
    ):
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
    job: Annotated[str, typer.Argument(help="The job: rfm_scoring.")],
    venue: Annotated[
        list[UUID] | None, typer.Option(help="Id of a venue to do; may be given again.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Results as of this moment (ISO; UTC unless it says); now.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace results of a later as_of.")] = False,
) -> None:
    """Run a job over its venues, here and now; exit 1 if a venue failed."""
    chosen = _job(job)
    console = _console()
    settings = read_settings(
        chosen.settings,
        os.environ.get(f"AIRFLOW_VAR_{job.upper()}"),
        name=f"AIRFLOW_VAR_{job.upper()}",
    )
    request = RunRequest.read({"venues": venue or None, "as_of": as_of, "force": force})
    address = DatabaseAddress.from_environment(DATABASE)

    def open_connection() -> psycopg.Connection:
        return connect(
            address,
            application_name=f"venue_analytics {job}",
            statement_timeout_seconds=settings.timeout_minutes * 60,
        )

    with open_connection() as connection:
        (now,) = connection.execute("SELECT now()").fetchone() or (datetime.now(UTC),)
        own = uuid4()
        planned = plan_run(
            connection,
            chosen,
            RunKey(own, job, f"cli__{own}"),
            settings,
            request,
            as_of=request.as_of or now,
        )
        batches = history.load_batches(connection, planned)
        try:
            with _progress(console) as progress:
                total = sum(len(batch.venues) for batch in batches)
                task = progress.add_task(job, total=total)

                def tell(venue: Venue, ended: str) -> None:
                    progress.advance(task)
                    if not console.is_terminal:
                        console.print(f"{venue.name} {ended}", highlight=False, markup=False)

                for batch in batches:
                    process_batch(open_connection, chosen, planned, batch, settings, on_venue=tell)
        finally:
            # an interrupted run ends in history too
            unfinished = finish_run(connection, planned)
        print_run(console, connection, planned)
    raise typer.Exit(bool(unfinished))


@app.command()
def show_run(
    job: Annotated[str, typer.Argument(help="The job: rfm_scoring.")],
    run_id: Annotated[str | None, typer.Option(help="Of the run; by default the last.")] = None,
    customers: Annotated[
        int, typer.Option(help="Show the best customers too, by the source's own ids.")
    ] = 0,
) -> None:
    """Show what a run did, venue by venue."""
    chosen = _job(job)
    console = _console()
    with connect(DatabaseAddress.from_environment(DATABASE)) as connection:
        found = history.load_latest_run(connection, chosen.name, run_id)
        if found is None:
            which = f"no run {run_id}" if run_id else "no run yet"
            _fail(f"{job}: {which} in history")
        print_run(console, connection, found)
        if customers:
            print_best_customers(console, connection, found, customers)


def main() -> None:
    """Run a command; a fault that a person can mend is told in words, not as a traceback."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    logging.getLogger("venue_analytics").setLevel(logging.CRITICAL)
    try:
        app()
    except (AnalyticsError, DatabaseConnectionError, LoadError, MigrationError) as error:
        _fail(str(error))
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        if "jobs" not in str(error.diag.message_primary):
            _fail(str(in_words(error)))
        _fail("this database is not migrated: run `python -m venue_analytics migrate` first")
    except psycopg.OperationalError as error:
        if error.sqlstate is not None:
            _fail(str(in_words(error)))
        _fail(f"the database cannot be reached: {' '.join(str(error).split())}")
    except psycopg.Error as error:
        _fail(str(in_words(error)))


def _job(name: str) -> Job[Any]:
    if name not in JOBS:
        _fail(f"job {name!r}: must be {', '.join(JOBS)}")
    return JOBS[name]


def _fail(message: str) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    sys.exit(1)


def _console() -> Console:
    # Without a terminal there is no width to fit: tables must not be cut at 80.
    return Console() if sys.stdout.isatty() else Console(width=160)


def _progress(console: Console) -> Progress:
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
