"""Measure RFM scoring: this project against a floor, plain SQL, pandas and row by row.

Everything runs on one embedded PostgreSQL 18, each way in a process of its own on new tables. The
ways with goals are measured repeatedly, alternating, and the quickest time counts. The bench stops
if a way computes other scores than this project. The last table compares figures with goals.

    make bench [SIZE=S]
    make bench SIZE=L
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import baselines, ours
from bench.measuring import SERVER_SETTINGS, Measured, bench_server, measure
from bench.reads import Read, measure_reads
from bench.sameness import (
    AS_FLOATS_DO,
    figures,
    refuse_difference,
    refuse_other_rows,
    state_fingerprint,
)
from bench.sources import (
    DAY,
    FIRST_NIGHT,
    SIZES,
    Size,
    copy,
    drop,
    empty,
    load,
    one_more_day,
    vacuum,
)
from rich.console import Console
from rich.table import Table

from venue_analytics.demo.servers import PostgresServer, ValkeyServer

#: Nights after the first build.
NIGHTS = 2
#: How often the floor and this project's first build are measured; the quickest counts.
TIMES = 2
FLOOR = "floor: read, and copy finished rows"
ONE_STATEMENT = "one statement, all venues"
ROW_BY_ROW = "row by row, as audited"
#: The number of slowest statements to print.
NAMED = 5

Way = Callable[..., Measured]


@dataclass
class Figures:
    """The measurements of one size."""

    size: Size
    pairs: int = 0
    ways: dict[str, Measured] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)

    def add(self, way: str, measured: Measured) -> None:
        """Keep the measurement if it is the way's quickest."""
        if way not in self.ways or measured.seconds < self.ways[way].seconds:
            self.ways[way] = measured


@dataclass(frozen=True)
class Verdict:
    """A figure and its goal; `limit` is the lowest or the highest figure that meets it."""

    what: str
    seconds: float
    figure: float
    limit: float
    unit: str = "x"
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the goal is met."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


def main() -> None:
    """Measure and print all chosen sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=[*SIZES, "S and M"], default="S and M")
    chosen = parser.parse_args().size
    sizes = [size for name, size in SIZES.items() if name == chosen or name in chosen.split()]
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    settings = ", ".join(f"{name} = {value}" for name, value in SERVER_SETTINGS.items())
    console.print(f"PostgreSQL 18 with {settings}; fsync on. A checkpoint before each measurement.")
    began = time.monotonic()
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="venue-analytics-bench-") as directory,
        bench_server(Path(directory) / "postgres") as postgres,
        ValkeyServer(Path(directory) / "valkey") as valkey,
    ):
        for size in sizes:
            bench = _Bench(console, postgres, valkey, size, Path(directory))
            bench.run()
            found.append(bench.found)
    _print_goals(console, found)
    console.print(f"{time.monotonic() - began:.0f} s in all.")


class _Bench:
    """The bench of one size, from generating its data to its reads."""

    def __init__(
        self,
        console: Console,
        postgres: PostgresServer,
        valkey: ValkeyServer,
        size: Size,
        directory: Path,
    ) -> None:
        self.found = Figures(size)
        self._console = console
        self._postgres = postgres
        self._valkey = valkey
        self._directory = directory
        # three copies of one database: for the baselines, the bare way and the guarded way
        self._others, self._bare, self._guarded = (
            f"{kind}_{size.name.lower()}" for kind in ("others", "bare", "guarded")
        )

    def run(self) -> None:
        """Measure everything, and print the cost of each way."""
        began = time.monotonic()
        load(self._postgres, self._others, self.found.size)
        for database in (self._bare, self._guarded):
            copy(self._postgres, self._others, database)
        self._print(f"generated in {time.monotonic() - began:.0f} s")
        self._first_builds()
        self._other_ways()
        self._nights()
        self._print_ways()
        self._reads()
        drop(self._postgres, self._others, self._bare, self._guarded)

    def _first_builds(self) -> None:
        """Measure first builds, each on emptied tables; the last build stays."""
        for _ in range(TIMES):
            for database in (self._bare, self._guarded):
                empty(self._postgres, database)
            self._do_bare("first build, bare", FIRST_NIGHT)
            self._do_guarded("first build, guarded", FIRST_NIGHT)
        for database in (self._bare, self._guarded):
            vacuum(self._postgres, database)
        refuse_difference(
            "the guarded first build",
            state_fingerprint(self._superuser(self._guarded)),
            state_fingerprint(self._superuser(self._bare)),
        )

    def _other_ways(self) -> None:
        expected = figures(self._superuser(self._bare))
        self.found.pairs = int(expected["customer_rfm_scores: count(*)"])
        uri = self._superuser(self._others)
        ways: dict[str, tuple[Way, str, tuple[Any, ...]]] = {
            ONE_STATEMENT: (baselines.one_statement, "one_statement", ()),
            FLOOR: (baselines.floor, "floor", ("one_statement", self._directory)),
            "pandas, a venue at a time": (baselines.pandas_by_venue, "by_pandas", ()),
        }
        again = [(FLOOR, ways[FLOOR])] * (TIMES - 1)
        for way, (function, schema, rest) in [*ways.items(), *again]:
            self._measure(way, self._others, function, uri, schema, FIRST_NIGHT, *rest)
        for schema in ("one_statement", "floor"):
            refuse_difference(schema, figures(uri, schema), expected)
        refuse_difference("by_pandas", figures(uri, "by_pandas"), expected, AS_FLOATS_DO)
        if self.found.size.name == "S":
            arguments = (uri, "row_by_row", FIRST_NIGHT)
            self._measure(ROW_BY_ROW, self._others, baselines.row_by_row, *arguments)
            refuse_other_rows(uri, "row_by_row", "one_statement")
        self._print("all ways computed the same scores")

    def _nights(self) -> None:
        """Measure nights in which 2 % of the pairs buy, bare and guarded."""
        for night in range(1, NIGHTS + 1):
            as_of = FIRST_NIGHT + night * DAY
            for database in (self._bare, self._guarded):
                one_more_day(self._postgres, database, night)
            self._do_bare("next night, bare", as_of)
            self._do_guarded("next night, guarded", as_of)
            refuse_difference(
                f"night {night}, guarded",
                state_fingerprint(self._superuser(self._guarded)),
                state_fingerprint(self._superuser(self._bare)),
            )

    def _do_bare(self, way: str, as_of: datetime) -> None:
        measured_in = self._jobs(self._guarded)
        self._measure(way, self._bare, ours.bare, self._jobs(self._bare), as_of, measured_in)

    def _do_guarded(self, way: str, as_of: datetime) -> Measured:
        uri = self._jobs(self._guarded)
        return self._measure(way, self._guarded, ours.guarded, uri, self._valkey.uri, as_of)

    def _measure(self, way: str, database: str, function: Way, *arguments: Any) -> Measured:
        measured = measure(self._postgres, database, function, *arguments)
        self.found.add(way, measured)
        self._print(f"{way} {measured.seconds:.2f} s")
        return measured

    def _reads(self) -> None:
        self.found.reads = measure_reads(self._postgres, self._guarded)
        table = a_table(
            f"{self.found.size.name}: the API's reads of the largest venue (! more than needed)",
            ("Question", "By"),
            ("Views, ms", "Plain, ms", "Ratio", "State rows read", "Needed"),
        )
        for read in self.found.reads:
            table.add_row(
                read.question.name,
                read.nodes,
                f"{read.seconds * 1e3:.2f}",
                f"{read.plain_seconds * 1e3:.2f}",
                f"{read.seconds / read.plain_seconds:.2f}",
                f"{read.rows_read:,}" + (" !" if read.rows_read > read.rows_needed else ""),
                f"{read.rows_needed:,}",
            )
        self._console.print(table)

    def _print_ways(self) -> None:
        size, ways = self.found.size, self.found.ways
        pairs = f"{self.found.pairs:,} pairs"
        table = a_table(
            f"{size.name}: {size.venues} venues, {pairs}, {size.orders:,} orders",
            ("What",),
            ("Seconds", "/ floor", "CPU, s", "Rows written", "WAL, MB", "HOT", "Worker, MB"),
        )
        for way, measured in ways.items():
            table.add_row(
                way + ("*" if measured.note else ""),
                f"{measured.seconds:.2f}",
                f"{measured.seconds / ways[FLOOR].seconds:.2f}",
                f"{measured.server_seconds:.2f}",
                f"{measured.rows:,}",
                f"{measured.wal_mb:,.1f}",
                "" if measured.hot is None else f"{measured.hot:.0%}",
                f"{measured.rss_mb:,.0f}",
            )
        self._console.print(table)
        for measured in ways.values():
            if measured.note:
                self._console.print(f"* {measured.note}")
        for way, measured in ways.items():
            if measured.statements:
                parts = measured.statements.most_common(NAMED)
                shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts)
                rest = measured.seconds - sum(seconds for _, seconds in parts)
                self._console.print(f"{way}, seconds by statement: {shown}; others {rest:.2f}")

    def _superuser(self, database: str) -> str:
        return self._postgres.superuser_uri(database)

    def _jobs(self, database: str) -> str:
        return self._postgres.uri(database, "analytics_jobs")

    def _print(self, what: str) -> None:
        self._console.print(f"{self.found.size.name}: {what}")


def _verdicts(found: Figures) -> Iterator[Verdict]:
    ways = found.ways

    def ratio(what: str, one: str, other: str, limit: float, *, at_least: bool = False) -> Verdict:
        figure = ways[one].seconds / ways[other].seconds
        seconds = ways[other if at_least else one].seconds
        return Verdict(what, seconds, figure, limit, at_least=at_least)

    first, night = "first build, guarded", "next night, guarded"
    if ROW_BY_ROW in ways:
        what = "first build, guarded: speed-up over the audited way (extrapolated)"
        yield ratio(what, ROW_BY_ROW, first, 300, at_least=True)
    is_small = found.size.name == "S"
    yield ratio("first build / one statement", first, ONE_STATEMENT, 1.1 if is_small else 0.7)
    yield ratio("next night / one statement", night, ONE_STATEMENT, 0.8 if is_small else 0.6)
    yield ratio("harness: first build, guarded / bare", first, "first build, bare", 1.1)
    yield ratio("harness: next night, guarded / bare", night, "next night, bare", 1.15)
    for way in (first, night):
        megabytes = ways[way].rss_mb
        yield Verdict(f"worker's peak memory, {way}", ways[way].seconds, megabytes, 200, "MB")
    for read in found.reads:
        figure = read.seconds / read.plain_seconds
        yield Verdict(f"read {read.question.name}", read.seconds, figure, read.question.goal)


def _growth(found: list[Figures]) -> Iterator[Verdict]:
    small, large = found[0], found[-1]
    if small is large:
        return
    for way in ("first build, guarded", "next night, guarded"):
        a_pair = [one.ways[way].seconds / one.pairs for one in (small, large)]
        what = f"growth: {way}, time per pair at {large.size.name} / {small.size.name}"
        yield Verdict(what, large.ways[way].seconds, a_pair[1] / a_pair[0], 1.3)


def _print_goals(console: Console, found: list[Figures]) -> None:
    table = a_table("Goals of RFM scoring", ("Size", "What"), ("Seconds", "Ratio", "Goal", "Met"))
    rows = [(one.size.name, verdict) for one in found for verdict in _verdicts(one)]
    rows += [("", verdict) for verdict in _growth(found)]
    for size, verdict in rows:
        unit = " MB" if verdict.unit == "MB" else ""
        table.add_row(
            size,
            verdict.what,
            f"{verdict.seconds:.2f}" if verdict.seconds >= 0.1 else f"{verdict.seconds:.5f}",
            f"{verdict.figure:,.{0 if verdict.figure >= 20 else 2}f}{unit}",
            f"{'≥' if verdict.at_least else '≤'} {verdict.limit:g}{unit}",
            "[green]met[/green]" if verdict.is_met else "[red]missed[/red]",
        )
    console.print(table)
    console.print("Ten thousand tiny venues: python -m bench.tiny_venues.")


def a_table(title: str, texts: Iterable[str], numbers: Iterable[str]) -> Table:
    """Return an empty table with columns of text, then of numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


if __name__ == "__main__":
    main()
