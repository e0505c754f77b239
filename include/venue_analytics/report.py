"""What commands found and did, as tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from venue_analytics.database.statements import statement
from venue_analytics.harness import Venue, history
from venue_analytics.harness.dead_letters import DeadLetter
from venue_analytics.harness.history import Attempt, AttemptSummary, PlannedRun, RunSummary
from venue_analytics.harness.request import moment
from venue_analytics.harness.tenant import tenant_transaction
from venue_analytics.harness.venues import ListedVenue
from venue_analytics.jobs import JOBS
from venue_analytics.jobs.rfm_scoring.rules import SEGMENT_CODES
from venue_analytics.preview import counted, movements, summed_up

if TYPE_CHECKING:
    from venue_analytics.database.check_source import SourceReport
    from venue_analytics.database.purchases import LoadReport

#: Columns of figures, set to the right.
NUMBERS: tuple[str, ...] = ("No.", "Venues", "Done", "Skipped", "Failed", "Left")
NUMBERS += ("Seconds", "Written", "Round", "Try", "Token")
#: Venues that are named when many have the same to say.
NAMED = 10
#: How runs and attempts end, as people see it.
OUTCOMES = {
    "planned": "[yellow]not finished[/yellow]",
    "running": "[yellow]running[/yellow]",
    "succeeded": "[green]✓ done[/green]",
    "skipped": "[yellow]– skipped[/yellow]",
    "failed": "[red]✗ failed[/red]",
}
#: Columns of a terminal from which the table shows the work as well as the result.
WIDE = 110
#: Columns of a terminal that a table with everything there is to say needs.
WIDEST = 160
#: Segments that fit beside the venues; more have a table of their own.
SEGMENTS_BESIDE = 4


def print_run(console: Console, connection: psycopg.Connection, run: PlannedRun) -> None:
    """Print a run venue by venue: how many customers, in which segments, worth how much."""
    venues = [venue for batch in history.load_batches(connection, run) for venue in batch.venues]
    attempts = history.last_attempts(connection, run)
    console.print()
    when = _compared_with(attempts) if run.dry_run else f"as of {moment(run.as_of)}"
    console.print(f"[bold]{run.job}[/bold] {when}", highlight=False)
    if not venues:
        console.print("No venues to do.")
    elif run.dry_run:
        console.print(f"Settings tried: {_tried(run)}", highlight=False, markup=False)
        _print_preview(console, venues, attempts)
    else:
        console.print(_table(venues, attempts, wide=console.width >= WIDE))
        if len(_segments(attempts)) > SEGMENTS_BESIDE:
            console.print(_segment_table(attempts))
        _print_notes(console, venues, attempts)
    for line in run.left_behind + run.source_faults:
        console.print(f"[yellow]![/yellow] {escape(line)}", highlight=False)


def _compared_with(attempts: Mapping[UUID, Attempt]) -> str:
    moments = sorted(
        datetime.fromisoformat(attempt.summary["as_of"])
        for attempt in attempts.values()
        if attempt.summary and "as_of" in attempt.summary
    )
    stands = ""
    if moments:
        later = f" to {moment(moments[-1])}" if moments[-1] > moments[0] else ""
        stands = f", as of {moment(moments[0])}{later}"
    return f"dry run: compared with what stands{stands}"


def _tried(run: PlannedRun) -> str:
    """Write the settings of a run that are not the defaults, as JSON."""
    defaults = JOBS[run.job].settings().model_dump(mode="json")
    own = {name: value for name, value in run.settings.items() if value != defaults.get(name)}
    return json.dumps(own, ensure_ascii=False) if own else "the defaults"


def _print_preview(console: Console, venues: list[Venue], attempts: Mapping[UUID, Attempt]) -> None:
    """Print who would move between segments, and what went wrong."""
    moved = movements(attempts.values())
    if moved:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("From", "To"):
            table.add_column(name, overflow="fold")
        for name in ("Customers", "Spent"):
            table.add_column(name, justify="right", no_wrap=True)
        for one in moved:
            spent = f"{one.spent:,.2f} {one.currency}"
            table.add_row(one.before, one.after, f"{one.customers:,}", spent)
        console.print(table)
    console.print(f"{summed_up(attempts.values())} Dry run: nothing was written.", highlight=False)
    for venue in sorted(venues, key=lambda venue: venue.name):
        ended = attempts.get(venue.venue_id)
        if ended is None or ended.error:
            why = ended.error if ended and ended.error else "not begun"
            console.print(f"[red]✗[/red] {escape(venue.name)}: {escape(why)}", highlight=False)
        elif venue.gone:
            console.print(
                f"[yellow]![/yellow] {escape(venue.name)}: gone, its rows would be removed",
                highlight=False,
            )


def print_best_customers(
    console: Console, connection: psycopg.Connection, run: PlannedRun, customers: int
) -> None:
    """Print, for each tenant of a run, the customers who spent most."""
    batches = history.load_batches(connection, run)
    for tenant_id in sorted({venue.tenant_id for batch in batches for venue in batch.venues}):
        with tenant_transaction(connection, tenant_id):
            rows = connection.execute(
                statement(__package__, "best_customers"),
                {"tenant_id": tenant_id, "customers": customers},
            ).fetchall()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("Best customers", "Venue", "Segment"):
            table.add_column(name, overflow="fold")
        for name in ("R", "F", "M", "Purchases", "Spent", "Days ago"):
            table.add_column(name, justify="right")
        for customer, venue, segment, *figures, spent, days in rows:
            shown = (*map(str, figures), f"{spent:,.2f}", str(days))
            table.add_row(escape(customer), escape(venue), segment, *shown)
        console.print()
        console.print(table)


def print_source(console: Console, report: SourceReport) -> None:
    """Print what a check of the source found."""
    if report.adapter:
        console.print(f"Source contract by adapter [bold]{escape(report.adapter)}[/bold]")
        table = Table(box=None, pad_edge=False, header_style="bold")
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
    """Print what a load did, and the first rows that it rejected."""
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
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Line", "Column", "Value", "Reason"):
        table.add_column(column, justify="right" if column == "Line" else "left", overflow="fold")
    for reject in report.rejects:
        fields = (str(reject.line), reject.column or "", reject.value, reject.reason)
        table.add_row(*map(escape, fields))
    console.print(table)
    more = report.rejected - len(report.rejects)
    console.print(
        f"{f'and {more:,} more; ' if more else ''}all rejected rows stand in {rejects.resolve()}",
        highlight=False,
        markup=False,
    )


def _table(venues: list[Venue], attempts: Mapping[UUID, Attempt], *, wide: bool) -> Table:
    segments = _segments(attempts)
    if len(segments) > SEGMENTS_BESIDE:
        segments = []
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    table.add_column("Venue", footer=counted(len(venues), "venue"), overflow="fold")
    numbers: dict[str, Any] = {"justify": "right", "no_wrap": True}
    customers = sum((a.summary or {}).get("customers", 0) for a in attempts.values())
    table.add_column("Customers", footer=f"{customers:,}", **numbers)
    for name in segments:
        table.add_column(name, footer=f"{_in_segment(attempts, name):,}", **numbers)
    table.add_column("Spent", footer=_revenue(attempts), **numbers)
    if wide:
        table.add_column("Written", footer=_total(attempts, "rows_written"), **numbers)
        table.add_column("Unchanged", footer=_total(attempts, "rows_unchanged"), **numbers)
        table.add_column("Seconds", footer=_seconds(attempts), **numbers)
    for venue in sorted(venues, key=lambda venue: venue.name):
        row = _row(venue, attempts.get(venue.venue_id), segments)
        table.add_row(*row[: len(table.columns)])
    return table


def _segment_table(attempts: Mapping[UUID, Attempt]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Segment")
    for name in ("Customers", "Venues"):
        table.add_column(name, justify="right")
    for name in _segments(attempts):
        venues = sum(name in _segments_of(attempt) for attempt in attempts.values())
        table.add_row(name, f"{_in_segment(attempts, name):,}", f"{venues:,}")
    return table


def _segments(attempts: Mapping[UUID, Attempt]) -> list[str]:
    """Name the segments of a run's venues, those of the audited rules first."""
    names = {name for attempt in attempts.values() for name in _segments_of(attempt)}
    return sorted(names, key=lambda name: SEGMENT_CODES.get(name, 0))


def _in_segment(attempts: Mapping[UUID, Attempt], name: str) -> int:
    return sum(_segments_of(attempt).get(name, 0) for attempt in attempts.values())


def _segments_of(attempt: Attempt) -> dict[str, int]:
    return (attempt.summary or {}).get("segments") or {}


def _row(venue: Venue, attempt: Attempt | None, segments: list[str]) -> list[str]:
    if attempt is None:
        return [f"[red]✗[/red] {escape(venue.name)}", "not begun"]
    summary = attempt.summary or {}
    if attempt.outcome == "running":
        return [f"[yellow]…[/yellow] {escape(venue.name)}", "running"]
    if attempt.outcome == "failed":
        return [f"[red]✗[/red] {escape(venue.name)}", "failed"]
    if attempt.outcome == "skipped":
        return [f"[yellow]–[/yellow] {escape(venue.name)}", "skipped"]
    if not summary:
        return [f"[green]✓[/green] {escape(venue.name)}", "removed"]
    counts = summary["segments"]
    spent = f"{Decimal(summary['revenue']):,.2f} {summary['currency'] or '   '}"
    return [
        f"[green]✓[/green] {escape(venue.name)}",
        f"{summary['customers']:,}",
        *(f"{counts.get(name, 0):,}" for name in segments),
        spent,
        f"{attempt.rows_written or 0:,}",
        f"{attempt.rows_unchanged or 0:,}",
        f"{attempt.seconds or 0:.2f}",
    ]


def _print_notes(console: Console, venues: list[Venue], attempts: Mapping[UUID, Attempt]) -> None:
    left_out: dict[str, int] = {}
    for attempt in attempts.values():
        for kind, count in (attempt.left_out or {}).items():
            left_out[kind] = left_out.get(kind, 0) + count
    if left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
        console.print(f"Sales that make no purchase: {kinds}", highlight=False)
    reasons: dict[tuple[str, str], list[str]] = {}
    for venue in sorted(venues, key=lambda venue: venue.name):
        ended = attempts.get(venue.venue_id)
        if ended is not None and ended.error:
            reasons.setdefault(("[red]✗[/red]", ended.error), []).append(venue.name)
        elif ended is not None and ended.reason:
            mark = "" if ended.outcome == "succeeded" else "[yellow]![/yellow]"
            reasons.setdefault((mark, ended.reason), []).append(venue.name)
    for (mark, reason), names in reasons.items():
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        named = ", ".join(names[:NAMED]) + more
        told = f"{mark} {escape(named)}: {escape(reason)}"
        if not mark:
            told = f"{reason[:1].upper()}{escape(reason[1:])}: {escape(named)}"
        console.print(told, highlight=False)


def _revenue(attempts: Mapping[UUID, Attempt]) -> str:
    by_currency: dict[str, Decimal] = {}
    for attempt in attempts.values():
        summary = attempt.summary or {}
        if summary.get("currency"):
            currency = summary["currency"]
            spent = by_currency.get(currency, Decimal(0)) + Decimal(summary["revenue"])
            by_currency[currency] = spent
    return "\n".join(f"{spent:,.2f} {code}" for code, spent in sorted(by_currency.items()))


def _total(attempts: Mapping[UUID, Attempt], name: str) -> str:
    return f"{sum(getattr(attempt, name) or 0 for attempt in attempts.values()):,}"


def _seconds(attempts: Mapping[UUID, Attempt]) -> str:
    return f"{sum(attempt.seconds or 0 for attempt in attempts.values()):.2f}"


def print_venues(console: Console, venues: list[ListedVenue]) -> None:
    """Print the source's venues, a row each."""
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
        wide_only=dict.fromkeys(("Tenant", "Time zone", "Currency"), WIDE),
        folded=("Venue",),
    )


def print_runs(console: Console, runs: list[RunSummary]) -> None:
    """Print runs, a row each, the latest first."""
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
    _print_rows(
        console, rows, wide_only=dict.fromkeys(("Job", "Planned", "Took"), WIDE), folded=("Run",)
    )


def print_attempts(console: Console, attempts: list[AttemptSummary]) -> None:
    """Print attempts at a venue, a row each, the latest first."""
    if not attempts:
        console.print("No attempt at this venue in history.")
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
    wide_only = dict.fromkeys(("Seconds", "Written"), WIDE)
    wide_only |= dict.fromkeys(("Job", "Round", "Try", "Token", "Run"), WIDEST)
    _print_rows(console, rows, wide_only=wide_only, folded=("Run", "Why"))


def print_letters(console: Console, letters: list[DeadLetter]) -> None:
    """Print dead letters, a row each."""
    if not letters:
        console.print("No dead letters.")
        return
    rows = [
        {
            "No.": str(letter.id),
            "State": letter.state,
            "Job": letter.job,
            "Venue": escape(
                letter.venue_name + (f", {letter.key}" if letter.kind == "item" else "")
            ),
            "As of": _minute(letter.as_of),
            "Failed": f"{letter.attempts}×",
            "Last": _minute(letter.last_failed_at),
            "Why": escape(letter.error),
        }
        for letter in letters
    ]
    _print_rows(
        console, rows, wide_only=dict.fromkeys(("Job", "Last"), WIDE), folded=("Venue", "Why")
    )
    if any(letter.is_open for letter in letters):
        console.print(
            "Mend the cause, then `dead-letters replay NO`, or clear the failed tasks in Airflow.",
            highlight=False,
        )


def print_letter(console: Console, letter: DeadLetter, payload: dict[str, Any] | None) -> None:
    """Print one dead letter whole."""
    rows = {
        "Letter": f"{letter.id}, {letter.state}",
        "Job": letter.job,
        "Venue": f"{letter.venue_name} ({letter.venue_id}), tenant {letter.tenant_id}",
        "Item": letter.key if letter.kind == "item" else None,
        "Run": f"{letter.run_id} as of {moment(letter.as_of)}",
        "Failed": f"{letter.attempts}×, from {moment(letter.first_failed_at)} to "
        f"{moment(letter.last_failed_at)}",
        "Ended": moment(letter.ended_at) if letter.ended_at else None,
        "Discarded": f"by {letter.ended_by}: {letter.reason}" if letter.ended_by else None,
        "Why": letter.error,
        "Error": letter.error_type,
        "Payload": json.dumps(payload, indent=2, default=str) if payload is not None else None,
    }
    table = Table(box=None, pad_edge=False, show_header=False)
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
    wide_only: Mapping[str, int],
    folded: tuple[str, ...],
) -> None:
    """Print rows of the same columns; a narrow terminal gets fewer, and none of them is cut."""
    hidden = {name for name, width in wide_only.items() if console.width < width}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        if name not in hidden:
            is_number = name in NUMBERS
            table.add_column(
                name,
                justify="right" if is_number else "left",
                no_wrap=name not in folded,
                min_width=15 if name in folded else None,
                overflow="fold",
            )
    for row in rows:
        table.add_row(*(value for name, value in row.items() if name not in hidden))
    console.print(table)


def _kind(run: RunSummary) -> str:
    asked = {"forced": run.force, "dry run": run.dry_run}
    kinds = ", ".join(kind for kind, is_asked in asked.items() if is_asked)
    return f" ({kinds})" if kinds else ""


def _took(time: timedelta) -> str:
    return str(timedelta(seconds=round(time.total_seconds())))


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
