"""Generate the platforms that are scored: sizes, sales, and further days of sales."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import psycopg
from bench.measuring import sql_file
from psycopg import sql

from venue_analytics.database.connection import DatabaseAddress
from venue_analytics.database.migrate import migrate
from venue_analytics.demo.servers import PostgresServer

#: The as_of of the first build.
FIRST_NIGHT = datetime(2026, 2, 24, 2, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Size:
    """The size of a platform.

    Attributes:
        name: a name for the output.
        venues: number of venues, of Zipf-distributed sizes.
        tenants: number of tenants.
        pairs: number of pairs of a venue and a customer who bought there.
        orders: number of orders.
        skew: exponent of the Zipf distribution; 0 makes all venues equal.
        events: number of events per venue.
        customers: minimum number of customers per tenant.
    """

    name: str
    venues: int
    tenants: int
    pairs: int
    orders: int
    skew: float = 0.9
    events: int = 20
    customers: int = 0


SIZES = {
    "S": Size("S", venues=20, tenants=1, pairs=28_000, orders=100_000),
    "M": Size("M", venues=200, tenants=10, pairs=300_000, orders=1_500_000),
    "L": Size("L", venues=500, tenants=10, pairs=1_500_000, orders=10_000_000),
}


def load(server: PostgresServer, database: str, size: Size) -> None:
    """Create a migrated database with the platform's tables and no scores."""
    server.prepare({database: "analytics_owner"})
    owner = server.uri(database, "analytics_owner")
    parameters: dict[str, Any] = vars(size) | {"until": FIRST_NIGHT}
    platform = files("venue_analytics.demo")
    with psycopg.connect(owner, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("SET work_mem = '256MB'")
        # random() must see the rows in the same order each time, which parallel workers would mix
        connection.execute("SET max_parallel_workers_per_gather = 0")
        connection.execute(platform.joinpath("platform_schema.sql").read_text())
        connection.execute(sql_file("sales"), parameters)
        connection.execute(platform.joinpath("platform_access.sql").read_text())
    migrate(DatabaseAddress.parse(owner, name=database), adapter="platform")
    vacuum(server, database)


def copy(server: PostgresServer, template: str, database: str) -> None:
    """Create a database as a physical copy of another one."""
    with psycopg.connect(server.superuser_uri(), autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy OWNER analytics_owner")
        connection.execute(create.format(sql.Identifier(database), sql.Identifier(template)))


def empty(server: PostgresServer, database: str) -> None:
    """Delete all scores and all history."""
    tables = (
        "SELECT string_agg(quote_ident(schemaname) || '.' || quote_ident(tablename), ', ') "
        "FROM pg_tables WHERE schemaname = 'jobs' OR tablename IN ('customer_rfm_state', "
        "'venue_rfm_state', 'venue_rfm_rules', 'customer_segments', 'customer_segment_change')"
    )
    with psycopg.connect(server.superuser_uri(database), autocommit=True) as connection:
        (names,) = connection.execute(tables).fetchone() or ("",)
        connection.execute(f"TRUNCATE {names}")


def drop(server: PostgresServer, *databases: str) -> None:
    """Drop databases."""
    with psycopg.connect(server.superuser_uri(), autocommit=True) as connection:
        for database in databases:
            connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(database)))


def one_more_day(server: PostgresServer, database: str, night: int) -> None:
    """Add the sales of the day before a night; the first night is number 0.

    Nothing is vacuumed or analysed then: a day's sales are too few to trigger autovacuum.
    """
    parameters = {"since": FIRST_NIGHT + (night - 1) * DAY, "day": night}
    uri = server.superuser_uri(database)
    with psycopg.connect(uri, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(sql_file("night"), parameters)


def vacuum(server: PostgresServer, database: str) -> None:
    """Vacuum and analyse, as autovacuum does after a load."""
    with psycopg.connect(server.superuser_uri(database), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
