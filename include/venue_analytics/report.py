"""Print the results of commands as tables."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable

from venue_analytics.harness import (
    Column,
    Job,
    Table,
    Unit,
    counted,
    format_moment,
    history,
)
from venue_analytics.harness.dead_letters import DeadLetter
from venue_analytics.harness.find_units import ListedVenue
from venue_analytics.harness.history import (
    DRY_RUN,
    Attempt,
    AttemptSummary,
    PlannedRun,
    RunSummary,
)
from venue_analytics.harness.job import Top
from venue_analytics.harness.tenant import tenant_transaction
from venue_analytics.jobs import JOBS

if TYPE_CHECKING:
    from venue_analytics.database.check_source import SourceReport
    from venue_analytics.database.purchases import LoadReport

#: Right-aligned columns.
NUMBERS: tuple[str, ...] = ("No.", "Venues", "Done", "Skipped", "Failed", "Left")
NUMBERS += ("Seconds", "Written", "Round", "Try", "Token")
#: The most units named in one note.
NAMED = 10
#: The text of each outcome of runs and attempts.
OUTCOMES = {
    "planned": "[yellow]not finished[/yellow]",
    "running": "[yellow]running[/yellow]",
    "succeeded": "[green]✓ done[/green]",
    "skipped": "[yellow]– skipped[/yellow]",
    "failed": "[red]✗ failed[/red]",
}
#: Narrowest column of texts that fold, in characters.
NARROWEST = 15


def print_run(console: Console, connection: psycopg.Connection, run: PlannedRun) -> None:
    """Print a run: a table of its units, the job's report, and notes."""
    job = JOBS[run.job]
    batches = history.load_batches(connection, run)
    units = [unit for batch in batches for unit in batch.units]
    attempts = history.last_attempts(connection, run)
    console.print()
    when = "dry run" if run.dry_run else f"as of {format_moment(run.as_of)}"
    asked = "".join(f", {name} {value}" for name, value in run.parameters.items() if value)
    console.print(f"[bold]{run.job}[/bold] {when}{escape(asked)}", highlight=False)
    if run.dry_run:
        console.print(f"Settings tried: {_tried(run)}", highlight=False, markup=False)
    shown = history.report_of(job, run, attempts)
    if not units:
        console.print(f"No {job.unit.plural} to do.")
    elif not run.dry_run:
        forgotten = {
            unit.id
            for batch in batches
            if batch.ended_well and not job.keeps_every_success
            for unit in batch.units
        }
        columns = [*shown.columns, *_work(attempts)]
        whole = _table(job, units, attempts, forgotten, columns)
        narrow = _table(job, units, attempts, forgotten, shown.columns)
        console.print(whole if _fits(console, whole) else narrow)
    for table in shown.tables:
        print_table(console, table)
    for line in shown.lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if run.dry_run:
        console.print("Nothing was written.")
    _print_notes(console, units, attempts)
    for line in run.left_behind + run.source_faults:
        console.print(f"[yellow]![/yellow] {escape(line)}", highlight=False)


def print_top(
    console: Console, connection: psycopg.Connection, run: PlannedRun, top: Top, rows: int
) -> None:
    """Print the job's top rows, as they are now, for each tenant of a run."""
    batches = history.load_batches(connection, run)
    for tenant_id in sorted({unit.tenant_id for batch in batches for unit in batch.units}):
        with tenant_transaction(connection, tenant_id):
            table = top(connection, tenant_id, rows)
        console.print(f"\nTenant {tenant_id}, now:", highlight=False)
        print_table(console, table)


def print_table(console: Console, table: Table) -> None:
    """Print a table of a job's report."""
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    for name in table.columns:
        is_number = name in table.numbers
        shown.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    for row in table.rows:
        shown.add_row(*map(escape, row))
    console.print(shown)


def _tried(run: PlannedRun) -> str:
    """Return the settings of a run that are not the defaults, as JSON."""
    defaults = JOBS[run.job].settings().model_dump(mode="json")
    own = {name: value for name, value in run.settings.items() if value != defaults.get(name)}
    return json.dumps(own, ensure_ascii=False) if own else "the defaults"


def print_source(console: Console, report: SourceReport) -> None:
    """Print the result of a check of the source."""
    if report.adapter:
        console.print(f"Source contract by adapter [bold]{escape(report.adapter)}[/bold]")
        table = RichTable(box=None, pad_edge=False, header_style="bold")
        table.add_column("View")
        table.add_column("Rows", justify="right")
        for view, rows in report.rows.items():
            table.add_row(f"source.{view}", f"{rows:,}")
        console.print(table)
        zones = ", ".join(f"{zone} {count}" for zone, count in sorted(report.time_zones.items()))
        console.print(f"Venues by time zone: {zones or 'none'}", highlight=False, markup=False)
    for warning in report.warnings:
        console.print(f"[yellow]warning[/yellow] {escape(warning)}", highlight=False)
    for fault in report.faults:
        console.print(f"[red]fault[/red]   {escape(fault)}", highlight=False)
    verdict = "breaks the contract" if report.faults else "keeps the contract"
    console.print(
        f"The source {verdict}: {counted(len(report.faults), 'fault')}, "
        f"{counted(len(report.warnings), 'warning')}.",
        highlight=False,
    )


def print_load(console: Console, report: LoadReport, rejects: Path, currency: str) -> None:
    """Print the result of a load, and the first rejected rows."""
    used = ", ".join(f"{role} = {header}" for role, header in report.columns.items())
    if "currency" not in report.columns:
        used += f"; amounts are taken as {currency} (--currency)"
    console.print(f"Columns: {used}", highlight=False, markup=False)
    console.print(
        f"{report.dataset}: {report.rows_read:,} rows, {report.loaded:,} loaded "
        f"({report.inserted:,} new, {report.updated:,} changed, {report.unchanged:,} as before), "
        f"{report.removed:,} removed, {report.rejected:,} rejected; "
        f"{counted(report.customers, 'customer')}, {counted(report.venues, 'venue')}, "
        f"{report.first_purchase:%Y-%m-%d} to {report.last_purchase:%Y-%m-%d}",
        highlight=False,
        markup=False,
    )
    if not report.rejected:
        return
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in ("Line", "Column", "Value", "Reason"):
        table.add_column(column, justify="right" if column == "Line" else "left", overflow="fold")
    for reject in report.rejects:
        fields = (str(reject.line), reject.column or "", reject.value, reject.reason)
        table.add_row(*map(escape, fields))
    console.print(table)
    more = report.rejected - len(report.rejects)
    console.print(
        f"{f'and {more:,} more; ' if more else ''}all rejected rows are in {rejects.resolve()}",
        highlight=False,
        markup=False,
    )


def _table(
    job: Job[Any],
    units: list[Unit],
    attempts: Mapping[UUID, Attempt],
    forgotten: Collection[UUID],
    columns: Sequence[Column],
) -> RichTable:
    table = RichTable(box=None, pad_edge=False, header_style="bold", show_footer=True)
    table.add_column(
        job.unit.capitalize(),
        footer=counted(len(units), job.unit),
        min_width=NARROWEST,
        overflow="fold",
    )
    for column in columns:
        table.add_column(column.name, footer=column.total, justify="right", no_wrap=True)
    for unit in sorted(units, key=lambda unit: unit.name):
        attempt = attempts.get(unit.id)
        mark, word = _ended(attempt, is_forgotten=unit.id in forgotten)
        figures = [str(column.values.get(unit.id, "")) for column in columns]
        if word and columns:  # the unit has no figures: show the word instead
            figures = [word, *([""] * (len(columns) - 1))]
        table.add_row(f"{mark} {escape(unit.name)}", *figures)
    return table


def _work(attempts: Mapping[UUID, Attempt]) -> Iterator[Column]:
    """Yield the columns that show the work done, which a narrow terminal does without."""
    for name, field, form in (
        ("Written", "rows_written", ","),
        ("Unchanged", "rows_unchanged", ","),
        ("Seconds", "seconds", ".2f"),
    ):
        figures = {unit_id: getattr(one, field) or 0 for unit_id, one in attempts.items()}
        shown = {unit_id: format(figure, form) for unit_id, figure in figures.items()}
        yield Column(name, shown, format(sum(figures.values()), form))


def _ended(attempt: Attempt | None, *, is_forgotten: bool) -> tuple[str, str]:
    """Return the mark of a unit, and a word if it has no figures to show."""
    if attempt is None:
        return ("[green]✓[/green]", "done") if is_forgotten else ("[red]✗[/red]", "not begun")
    if attempt.outcome == "running":
        return "[yellow]…[/yellow]", "running"
    if attempt.outcome == "failed":
        return "[red]✗[/red]", "failed"
    if attempt.outcome == "skipped":
        return "[yellow]–[/yellow]", "skipped"
    return "[green]✓[/green]", "removed" if attempt.unit_gone else ""


def _print_notes(console: Console, units: list[Unit], attempts: Mapping[UUID, Attempt]) -> None:
    reasons: dict[tuple[str, str], list[str]] = {}
    for unit in sorted(units, key=lambda unit: unit.name):
        ended = attempts.get(unit.id)
        if ended is not None and ended.error:
            reasons.setdefault(("[red]✗[/red]", ended.error), []).append(unit.name)
        elif ended is not None and ended.reason and ended.reason != DRY_RUN:
            mark = "" if ended.outcome == "succeeded" else "[yellow]![/yellow]"
            reasons.setdefault((mark, ended.reason), []).append(unit.name)
    for (mark, reason), names in reasons.items():
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        named = ", ".join(names[:NAMED]) + more
        note = f"{mark} {escape(named)}: {escape(reason)}"
        if not mark:
            note = f"{reason[:1].upper()}{escape(reason[1:])}: {escape(named)}"
        console.print(note, highlight=False, soft_wrap=True)


def print_venues(console: Console, venues: list[ListedVenue]) -> None:
    """Print the venues of the source, one row each."""
    if not venues:
        console.print("The source lists no venues.")
        return
    rows = [
        {
            "Venue": escape(venue.name or ""),
            "Id": str(venue.venue_id),
            "Open": "" if venue.open else "closed",
            "Tenant": str(venue.tenant_id or "none: left out"),
            "Time zone": venue.timezone or "UTC",
            "Currency": venue.currency or "",
        }
        for venue in venues
    ]
    _print_rows(
        console,
        rows,
        droppable=("Currency", "Time zone", "Tenant"),
        folded=("Venue",),
    )


def print_runs(console: Console, runs: list[RunSummary]) -> None:
    """Print runs, one row each, the latest first."""
    if not runs:
        console.print("No runs in history.")
        return
    rows = [
        {
            "Run": escape(run.run_id) + _kind(run),
            "Job": run.job,
            "As of": _minute(run.as_of),
            "Planned": _minute(run.planned_at),
            "Took": "" if run.finished_at is None else _took(run.finished_at - run.planned_at),
            "Venues": f"{run.planned:,}",
            "Done": f"{run.succeeded:,}",
            "Skipped": f"{run.skipped:,}",
            "Failed": f"{run.failed:,}",
            "Left": f"{run.planned - run.succeeded - run.skipped - run.failed:,}",
            "Ended": OUTCOMES[run.outcome],
        }
        for run in runs
    ]
    _print_rows(console, rows, droppable=("Planned", "Took", "Job"), folded=("Run",))


def print_attempts(console: Console, attempts: list[AttemptSummary]) -> None:
    """Print attempts at a unit, one row each, the latest first."""
    if not attempts:
        console.print("No attempts in history.")
        return
    rows = [
        {
            "Began": _minute(attempt.started_at),
            "Job": attempt.job,
            "As of": _minute(attempt.as_of),
            "Ended": OUTCOMES[attempt.outcome],
            "Seconds": "" if attempt.seconds is None else f"{attempt.seconds:.2f}",
            "Written": "" if attempt.rows_written is None else f"{attempt.rows_written:,}",
            "Round": str(attempt.round),
            "Try": str(attempt.try_number),
            "Token": "" if attempt.token is None else str(attempt.token),
            "Run": escape(attempt.run_id),
            "Why": escape(attempt.reason or ""),
        }
        for attempt in attempts
    ]
    droppable = ("Run", "Token", "Try", "Round", "Job", "Written", "Seconds")
    _print_rows(console, rows, droppable=droppable, folded=("Run", "Why"))


def print_letters(console: Console, letters: list[DeadLetter]) -> None:
    """Print dead letters, one row each."""
    if not letters:
        console.print("No dead letters.")
        return
    rows = [
        {
            "No.": str(letter.id),
            "State": letter.state,
            "Job": letter.job,
            "About": escape(_about(letter)),
            "As of": _minute(letter.as_of),
            "Failed": f"{letter.attempts}×",
            "Last": _minute(letter.last_failed_at),
            "Why": escape(letter.error),
        }
        for letter in letters
    ]
    _print_rows(console, rows, droppable=("Last", "Job"), folded=("About", "Why"))
    if any(letter.is_open for letter in letters):
        console.print(
            "Fix the cause, then `dead-letters replay NO`, or clear the failed tasks in Airflow.",
            highlight=False,
        )


def _about(letter: DeadLetter) -> str:
    parts = (letter.unit_name, letter.key if letter.kind != "unit" else None)
    return ", ".join(part for part in parts if part)


def print_letter(console: Console, letter: DeadLetter, payload: dict[str, Any] | None) -> None:
    """Print all fields of a dead letter."""
    rows = {
        "Letter": f"{letter.id}, {letter.state}",
        "Job": letter.job,
        "Unit": f"{letter.unit_name} ({letter.unit_id}), tenant {letter.tenant_id}"
        if letter.unit_id
        else None,
        "Item": letter.key if letter.kind == "item" else None,
        "Action": letter.key if letter.kind == "action" else None,
        "Message": letter.key if letter.kind == "message" else None,
        "Run": f"{letter.run_id} as of {format_moment(letter.as_of)}",
        "Failed": f"{letter.attempts}×, from {format_moment(letter.first_failed_at)} to "
        f"{format_moment(letter.last_failed_at)}",
        "Ended": format_moment(letter.ended_at) if letter.ended_at else None,
        "Discarded": f"by {letter.ended_by}: {letter.reason}" if letter.ended_by else None,
        "Why": letter.error,
        "Error": letter.error_type,
        "Payload": json.dumps(payload, indent=2, default=str) if payload is not None else None,
    }
    table = RichTable(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, escape(value))
    console.print(table)
    if letter.traceback:
        console.print(letter.traceback.rstrip(), highlight=False, markup=False)


def _print_rows(
    console: Console,
    rows: list[dict[str, str]],
    *,
    droppable: Sequence[str],
    folded: Sequence[str],
) -> None:
    """Print rows as a table. A narrow terminal shows fewer columns, but cuts none.

    Args:
        console: where to print.
        rows: cells by the names of columns, the same in each.
        droppable: columns to leave out until the table fits, the first one first.
        folded: columns of texts that may take several lines.
    """
    columns = list(rows[0])
    table = _table_of(rows, columns, folded)
    for name in droppable:
        if _fits(console, table):
            break
        columns.remove(name)
        table = _table_of(rows, columns, folded)
    console.print(table)


def _table_of(
    rows: list[dict[str, str]], columns: Sequence[str], folded: Sequence[str]
) -> RichTable:
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in NUMBERS else "left",
            no_wrap=name not in folded,
            min_width=NARROWEST if name in folded else None,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    return table


def _fits(console: Console, table: RichTable) -> bool:
    """Return whether a table can be printed without a column being cut."""
    options = console.options.update(max_width=10_000)
    return Measurement.get(console, options, table).minimum <= console.width


def _kind(run: RunSummary) -> str:
    asked = {"forced": run.force, "dry run": run.dry_run}
    kinds = ", ".join(kind for kind, is_asked in asked.items() if is_asked)
    return f" ({kinds})" if kinds else ""


def _took(time: timedelta) -> str:
    return str(timedelta(seconds=round(time.total_seconds())))


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
