"""How a way of scoring is measured: in a process of its own, on a server that waits for nothing."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import psutil
import psycopg
from psycopg import sql

import venue_analytics
from venue_analytics.demo.servers import PostgresServer

HERE = Path(__file__).parent
PACKAGE = Path(venue_analytics.__file__).parent

#: Memory enough that it is not what is measured; and vacuum when we say so, not by chance.
SERVER_SETTINGS = {
    "shared_buffers": "2GB",
    "work_mem": "64MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}
MEGABYTE = 1e6


@dataclass(frozen=True)
class Measured:
    """What a way of scoring took.

    Attributes:
        seconds: of the clock, without the start of its process.
        server_seconds: of the server's processors, with the start of its session.
        rows: that it wrote.
        wal_mb: write-ahead log, megabytes of a million bytes.
        rss_mb: the most memory that its process held.
        hot: of the updates of customer_rfm_state, the share that touched no index; None if none.
        statements: seconds by statement, where it runs ours.
        note: what a reader must know.
    """

    seconds: float
    server_seconds: float = 0.0
    rows: int = 0
    wal_mb: float = 0.0
    rss_mb: float = 0.0
    hot: float | None = None
    statements: Counter[str] = field(default_factory=Counter)
    note: str = ""


@contextmanager
def bench_server(directory: Path) -> Iterator[PostgresServer]:
    """Run a PostgreSQL 18 under the settings above."""
    with PostgresServer(directory, 18) as server:
        with psycopg.connect(server.superuser_uri(), autocommit=True) as connection:
            for name, value in SERVER_SETTINGS.items():
                setting = sql.SQL("ALTER SYSTEM SET {} = {}")
                connection.execute(setting.format(sql.Identifier(name), sql.Literal(value)))
        server.stop()
        server.start()
        yield server


def measure(
    server: PostgresServer, database: str, way: Callable[..., Measured], *arguments: Any
) -> Measured:
    """Run a way of scoring in a new process.

    Begins with a checkpoint: each page that is then written first goes to the log in whole, as it
    does of a night.
    """
    with psycopg.connect(server.superuser_uri(database), autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        updates_before, hot_before = _updates(connection)
        cpu_before = _processor_seconds(server)
        (begin,) = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone() or ("0/0",)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            measured, rss_mb = pool.submit(_in_child, way, arguments).result()
        _wait_for_sessions_to_end(connection)
        server_seconds = _processor_seconds(server) - cpu_before
        (wal,) = connection.execute(
            "SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", [begin]
        ).fetchone() or (0,)
        updates, hot = _updates(connection)
    return replace(
        measured,
        server_seconds=server_seconds,
        wal_mb=float(wal) / MEGABYTE,
        rss_mb=rss_mb,
        hot=(hot - hot_before) / (updates - updates_before) if updates > updates_before else None,
    )


def _in_child(way: Callable[..., Measured], arguments: tuple[Any, ...]) -> tuple[Measured, float]:
    return way(*arguments), _peak_rss() / MEGABYTE


def _peak_rss() -> int:
    """Give the most memory that this process held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # on Linux, getrusage's begins with that of the process it was forked from
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(peak) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _processor_seconds(server: PostgresServer) -> float:
    """Return the processor seconds of the server's processes and of those that have ended."""
    postmaster = psutil.Process(server.pid)
    spent = sum(postmaster.cpu_times())
    for child in postmaster.children():
        with suppress(psutil.NoSuchProcess):
            spent += sum(child.cpu_times()[:2])
    return spent


def _wait_for_sessions_to_end(connection: psycopg.Connection[Any]) -> None:
    """Wait until nobody else is in this database: a session counts its updates as it goes."""
    others = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    while connection.execute(others).fetchone() is not None:
        time.sleep(0.02)


def _updates(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    row = connection.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables "
        "WHERE relname = 'customer_rfm_state'"
    ).fetchone()
    return row or (0, 0)


def sql_file(name: str) -> str:
    """Read a statement of the bench."""
    return (HERE / f"{name}.sql").read_text(encoding="utf-8")


class TimedCursor(psycopg.Cursor[Any]):
    """A cursor that adds up the seconds of each of our statements, by the name of its file."""

    seconds: ClassVar[Counter[str]] = Counter()
    #: Of the file, by its text; filled by the first cursor.
    names: ClassVar[dict[str, str]] = {}

    def execute(self, query: Any, *args: Any, **options: Any) -> TimedCursor:
        """Execute, and note how long the server took to answer."""
        names = TimedCursor.names
        if not names:
            for path in PACKAGE.rglob("sql/*.sql"):
                names[path.read_text(encoding="utf-8")] = path.stem
        began = time.monotonic()
        super().execute(query, *args, **options)
        TimedCursor.seconds[names.get(query, "others")] += time.monotonic() - began
        return self
