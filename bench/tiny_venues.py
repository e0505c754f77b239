"""Measure the harness on many tiny venues, where its cost is highest, and on one large tenant.

Two copies of one database on one embedded PostgreSQL 18: bare (only the job's own step, group by
group) and guarded (with leases, tokens, history and fence, as a DAG run with one worker does).

    .venv/bin/python -m bench.tiny_venues [--venues 10000]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import psycopg
from bench import ours
from bench.measuring import Measured, bench_server, measure
from bench.rfm_scoring import a_table
from bench.sources import DAY, FIRST_NIGHT, Size, copy, drop, load, vacuum
from psycopg import sql
from rich.console import Console

from venue_analytics.database.connection import DatabaseAddress
from venue_analytics.database.migrate import migrate
from venue_analytics.demo.servers import PostgresServer, ValkeyServer

#: Maximum ratio of the guarded way's time to the bare one's.
GOAL = 1.3
ORDERS = 10
SIMPLE = """
CREATE TABLE orders (
    id uuid PRIMARY KEY, tenant_id uuid, user_id uuid, venue_id uuid, status text,
    total_amount numeric, created_at timestamptz
);
CREATE TABLE users (id uuid PRIMARY KEY);
CREATE TABLE venues (id uuid PRIMARY KEY, tenant_id uuid, name text);
SELECT setseed(0.5);
INSERT INTO venues
SELECT md5('venue ' || n)::uuid, md5('tenant ' || n %% %(tenants)s)::uuid, 'Venue ' || n
FROM generate_series(1, %(venues)s) AS n;
INSERT INTO users SELECT md5('user ' || n)::uuid FROM generate_series(1, 5000) AS n;
INSERT INTO orders
SELECT
    gen_random_uuid(), v.tenant_id, md5('user ' || 1 + floor(random() * 5000))::uuid, v.id,
    'completed', 10 + n, %(until)s - n * interval '1 day'
FROM venues AS v CROSS JOIN generate_series(1, %(orders)s) AS n;
CREATE INDEX ON orders (venue_id, user_id) INCLUDE (tenant_id, status, total_amount, created_at);
"""


def main() -> None:
    """Measure all shapes, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venues", type=int, default=10_000)
    venues = parser.parse_args().venues
    tiny = {"venues": venues, "pairs": 8 * venues, "orders": ORDERS * venues}
    shapes = (
        ("simple, 50 tenants", Size("simple", tenants=50, **tiny), None),
        ("platform, 50 tenants", Size("many", tenants=50, skew=0, events=2, **tiny), None),
        ("platform, a tenant each", Size("each", tenants=venues, skew=0, events=2, **tiny), "4MB"),
        (
            "platform, one tenant, 100 customers a venue",
            Size("one", venues, 1, 100 * venues, 150 * venues, 0, 2, 100 * venues),
            "4MB",
        ),
    )
    console = Console(width=110, highlight=False)
    table = a_table(
        f"{venues:,} venues",
        ("Source", "work_mem", "Night"),
        ("Bare, s", "Guarded, s", "CPU, s", "Ratio", f"≤ {GOAL}"),
    )
    with (
        tempfile.TemporaryDirectory(prefix="venue-analytics-bench-") as directory,
        bench_server(Path(directory) / "postgres") as postgres,
        ValkeyServer(Path(directory) / "valkey") as valkey,
    ):
        for shape, size, work_mem in shapes:
            _make_twins(postgres, size, work_mem)
            for night in range(2):
                bare, guarded = _night(postgres, valkey, night)
                ratio = guarded.seconds / bare.seconds
                table.add_row(
                    shape,
                    work_mem or "64MB",
                    "next" if night else "first",
                    f"{bare.seconds:.1f}",
                    f"{guarded.seconds:.1f}",
                    f"{guarded.server_seconds:.1f}",
                    f"{ratio:.2f}",
                    "met" if ratio <= GOAL else "missed",
                )
                console.print(f"{shape}, night {night}: {guarded.seconds:.1f} s")
            drop(postgres, "bare", "guarded")
    console.print(table)


def _make_twins(postgres: PostgresServer, size: Size, work_mem: str | None) -> None:
    if size.name == "simple":
        postgres.prepare({"bare": "analytics_owner"})
        owner = postgres.uri("bare", "analytics_owner")
        with psycopg.connect(owner, cursor_factory=psycopg.ClientCursor) as connection:
            values = {"tenants": size.tenants, "venues": size.venues, "orders": ORDERS}
            connection.execute(SIMPLE, values | {"until": FIRST_NIGHT})
        migrate(DatabaseAddress.parse(owner, name="bare"), adapter="simple")
        vacuum(postgres, "bare")
    else:
        load(postgres, "bare", size)
    copy(postgres, "bare", "guarded")
    for name in ("bare", "guarded") if work_mem else ():
        with psycopg.connect(postgres.superuser_uri(), autocommit=True) as connection:
            alter = sql.SQL("ALTER DATABASE {} SET work_mem = {}")
            connection.execute(alter.format(sql.Identifier(name), sql.Literal(work_mem)))


def _night(postgres: PostgresServer, valkey: ValkeyServer, night: int) -> tuple[Measured, Measured]:
    bare, guarded = (postgres.uri(name, "analytics_jobs") for name in ("bare", "guarded"))
    as_of = FIRST_NIGHT + night * DAY
    found = (
        measure(postgres, "bare", ours.bare, bare, as_of, guarded),
        measure(postgres, "guarded", ours.guarded, guarded, valkey.uri, as_of),
    )
    for name in ("bare", "guarded"):
        vacuum(postgres, name)
    return found


if __name__ == "__main__":
    main()
