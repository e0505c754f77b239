"""What the harness costs where it costs most: ten thousand venues of a few orders each.

Scores the same venues twice, in twin databases on one embedded PostgreSQL 18: bare (the job's own
step, a transaction a venue under its tenant, nothing else) and guarded (leases, tokens, history,
fence, as the command line runs a job). Prints both and their ratio; the goal is at most 1.3.

    .venv/bin/python bench/tiny_venues.py [--venues 10000] [--rounds 2]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from venue_analytics.command_line_run import run_job
from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.database.migrate import migrate
from venue_analytics.demo.servers import PostgresServer, ValkeyServer
from venue_analytics.harness import VenueRun
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.redis_server import RedisAddress
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.tenant import tenant_transaction
from venue_analytics.harness.venues import find_venues
from venue_analytics.jobs import RFM_SCORING
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

AS_OF = datetime(2026, 3, 1, 2, tzinfo=UTC)
TENANTS = 50
ORDERS = 10
SOURCE = """
CREATE TABLE orders (
    id uuid PRIMARY KEY, tenant_id uuid, user_id uuid, venue_id uuid, status text,
    total_amount numeric, created_at timestamptz
);
CREATE TABLE users (id uuid PRIMARY KEY);
CREATE TABLE venues (id uuid PRIMARY KEY, tenant_id uuid, name text);
INSERT INTO venues
SELECT gen_random_uuid(), md5('tenant ' || n %% %(tenants)s)::uuid, 'Venue ' || n
FROM generate_series(1, %(venues)s) AS n;
INSERT INTO users SELECT md5('user ' || n)::uuid FROM generate_series(1, 5000) AS n;
INSERT INTO orders
SELECT
    gen_random_uuid(), v.tenant_id, md5('user ' || 1 + floor(random() * 5000))::uuid, v.id,
    'completed', 10 + n, timestamptz '2026-02-01' + n * interval '1 day'
FROM venues AS v CROSS JOIN generate_series(1, %(orders)s) AS n;
CREATE INDEX ON orders (venue_id, user_id) INCLUDE (tenant_id, status, total_amount, created_at);
ANALYZE;
"""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venues", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2, help="nights; the first builds all")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="venue-analytics-bench-") as directory,
        PostgresServer(Path(directory) / "postgres", 18) as postgres,
        ValkeyServer(Path(directory) / "valkey") as valkey,
    ):
        postgres.prepare({"bare": "analytics_owner", "guarded": "analytics_owner"})
        for name in ("bare", "guarded"):
            owner = postgres.uri(name, "analytics_owner")
            with psycopg.connect(owner) as connection:
                cursor = psycopg.ClientCursor(connection)
                cursor.execute("SELECT setseed(0.5)")
                cursor.execute(
                    SOURCE, {"venues": options.venues, "tenants": TENANTS, "orders": ORDERS}
                )
            migrate(DatabaseAddress.parse(owner, name=name), adapter="simple")
        leases = Leases(RedisAddress.parse(valkey.uri, name="bench").client(), RFM_SCORING.name)

        def opener(name: str) -> Callable[[], psycopg.Connection]:
            address = DatabaseAddress.parse(postgres.uri(name, "analytics_jobs"), name=name)
            return lambda: connect(address)

        print(f"{options.venues:,} venues of {ORDERS} orders, seconds:")
        for night in range(options.rounds):
            as_of = AS_OF + timedelta(days=night)
            bare = _bare(opener("bare"), as_of)
            guarded = _guarded(opener("guarded"), leases, as_of)
            print(
                f"night {night + 1}: bare {bare:.1f}, guarded {guarded:.1f}, "
                f"ratio {guarded / bare:.2f}"
            )


def _bare(opener: Callable[[], psycopg.Connection], as_of: datetime) -> float:
    settings = RfmScoringSettings()
    with opener() as connection:
        began = time.monotonic()
        for venue in find_venues(connection, RFM_SCORING).venues:
            with tenant_transaction(connection, venue.tenant_id):
                RFM_SCORING.steps[0](
                    VenueRun(connection, venue, settings, as_of, False, lambda *_: None)
                )
        return time.monotonic() - began


def _guarded(opener: Callable[[], psycopg.Connection], leases: Leases, as_of: datetime) -> float:
    began = time.monotonic()
    request = RunRequest(venues=None, as_of=as_of, force=False)
    _, unfinished = run_job(
        opener, leases, RFM_SCORING, RfmScoringSettings(), request, lambda *_: None
    )
    if unfinished:
        raise SystemExit("\n".join(unfinished[:5]))
    return time.monotonic() - began


if __name__ == "__main__":
    main()
