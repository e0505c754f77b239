"""The demo's commands, called by `make run`, `up`, `down`, `clean` and `psql`."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from venue_analytics.demo import psql as database
from venue_analytics.demo import shutdown, supervisor
from venue_analytics.demo.profile import Profile, ProfileBusyError
from venue_analytics.demo.servers import ServerError
from venue_analytics.demo.supervisor import Purchases
from venue_analytics.demo.terminal import Terminal

DEMO = "demo"
OTHER_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    name="venue_analytics.demo",
    help="Run a complete system on this machine: PostgreSQL, Valkey, Airflow and sample data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[
    Path | None,
    typer.Option(help="A CSV file of purchases.", exists=True, dir_okay=False),
]
AsOf = Annotated[str | None, typer.Option(help="Run as of this moment (ISO).")]
Scale = Annotated[float, typer.Option(help="Size of the synthetic platform.", min=0.01)]


@app.command(context_settings=OTHER_OPTIONS)
def run(
    context: typer.Context,
    data: Data = None,
    as_of: AsOf = None,
    scale: Scale = 1,
    ui: Annotated[bool, typer.Option(help="Keep serving the UI if on a terminal.")] = True,
) -> None:
    """Run every job; other options are passed to load-orders."""
    terminal = Terminal()
    serve = ui and terminal.interactive
    _supervise(context, data, as_of, scale, terminal, serve=serve, run_jobs=True)


@app.command(context_settings=OTHER_OPTIONS)
def up(context: typer.Context, data: Data = None, scale: Scale = 1) -> None:
    """Serve the UI without making a run, until stopped."""
    _supervise(context, data, None, scale, Terminal(), serve=True, run_jobs=False)


@app.command()
def down() -> None:
    """Stop every demo of this clone."""
    shutdown.down(Terminal())


@app.command()
def clean() -> None:
    """Stop every demo and remove its data."""
    shutdown.clean(Terminal())


@app.command(context_settings=OTHER_OPTIONS)
def psql(context: typer.Context, data: Data = None) -> None:
    """Open psql on a demo's database; other options are passed to psql."""
    raise typer.Exit(database.psql(_profile(data), context.args))


def main() -> None:
    """Run a command; print errors that the user can fix without a traceback."""
    try:
        app()
    except (ProfileBusyError, ServerError) as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)


def _supervise(
    context: typer.Context,
    data: Path | None,
    as_of: str | None,
    scale: float,
    terminal: Terminal,
    *,
    serve: bool,
    run_jobs: bool,
) -> None:
    if data is None and (as_of is not None or context.args):
        given = "--as-of" if as_of is not None else context.args[0]
        raise typer.BadParameter(f"{given} applies only to your own purchases: add --data")
    purchases = Purchases(data, _parse_as_of(as_of), tuple(context.args)) if data else None
    code = supervisor.run(
        _profile(data), purchases, scale=scale, serve=serve, run_jobs=run_jobs, terminal=terminal
    )
    raise typer.Exit(code)


def _profile(data: Path | None) -> Profile:
    return Profile.of_data(data) if data else Profile(DEMO)


def _parse_as_of(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"--as-of is {text!r}: it must be an ISO date or time such as 2026-03-01T00:00:00Z"
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > datetime.now(UTC):
        raise typer.BadParameter(f"--as-of is {text}: it must not be in the future")
    return moment


if __name__ == "__main__":
    main()
