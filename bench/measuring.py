"""Measure a way of scoring in a process of its own, on a server with ample memory."""

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

#: Enough memory not to be the bottleneck, and no vacuum except where the bench runs it.
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
    """The cost of a way of scoring.

    Attributes:
        seconds: wall-clock seconds, without the start of its process.
        server_seconds: CPU seconds of the server, including the start of its session.
        rows: number of rows written.
        wal_mb: write-ahead log, in megabytes of a million bytes.
        rss_mb: peak memory of its process, in megabytes of a million bytes.
        hot: share of updates of customer_rfm_state that touched no index; None without updates.
        statements: seconds by statement of this project, if it runs them.
        note: a remark for the reader.
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
    """Run PostgreSQL 18 with SERVER_SETTINGS."""
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
    """Run a way of scoring in a new process, and return its cost.

    A checkpoint comes first, so that the first write of each page logs the whole page, as it does
    in production.
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
    """Return the peak memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # on Linux, getrusage's value starts from that of the parent process
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(peak) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _processor_seconds(server: PostgresServer) -> float:
    """Return the CPU seconds of the server's processes, including ended ones."""
    postmaster = psutil.Process(server.pid)
    spent = sum(postmaster.cpu_times())
    for child in postmaster.children():
        with suppress(psutil.NoSuchProcess):
            spent += sum(child.cpu_times()[:2])
    return spent


def _wait_for_sessions_to_end(connection: psycopg.Connection[Any]) -> None:
    """Wait until no other session is in this database: a session reports its updates as it ends."""
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
    """Return the text of an SQL file of the bench."""
    return (HERE / f"{name}.sql").read_text(encoding="utf-8")


class TimedCursor(psycopg.Cursor[Any]):
    """A cursor that sums the seconds of each statement of this project, by the name of its file."""

    seconds: ClassVar[Counter[str]] = Counter()
    #: The name of each file by its text; filled at the first execution.
    names: ClassVar[dict[str, str]] = {}

    def execute(self, query: Any, *args: Any, **options: Any) -> TimedCursor:
        """Execute a statement, and record the seconds until the server answered."""
        names = TimedCursor.names
        if not names:
            for path in PACKAGE.rglob("sql/*.sql"):
                names[path.read_text(encoding="utf-8")] = path.stem
        began = time.monotonic()
        super().execute(query, *args, **options)
        TimedCursor.seconds[names.get(query, "others")] += time.monotonic() - began
        return self
