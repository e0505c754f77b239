"""Measure the API's reads: views with row-level security against plain tables without it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from bench.baselines import TABLES
from bench.measuring import sql_file

from venue_analytics.demo.servers import PostgresServer

STATE = "customer_rfm_state"
SECONDS_A_READ = 1.0
AT_LEAST, AT_MOST = 15, 1500


@dataclass(frozen=True)
class Question:
    """A query of the API.

    Attributes:
        name: a name for the output.
        query: the query, over names that exist on both sides.
        needs: a query for the number of rows of the state that the answer needs.
        goal: the maximum ratio to the time of the plain table.
    """

    name: str
    query: LiteralString
    needs: LiteralString
    goal: float


OF_VENUE: LiteralString = "SELECT count(*) FROM customer_rfm_state WHERE venue_id = %(venue_id)s"
QUESTIONS = (
    Question(
        "one customer of a venue",
        "SELECT * FROM customer_rfm_scores "
        "WHERE venue_id = %(venue_id)s AND customer_id = %(customer_id)s",
        OF_VENUE + " AND customer_id = %(customer_id)s",
        2.5,
    ),
    Question(
        "a whole venue",
        "SELECT * FROM customer_rfm_scores WHERE venue_id = %(venue_id)s",
        OF_VENUE,
        1.7,
    ),
    Question(
        "a venue's top 50 by spend",
        "SELECT * FROM customer_rfm_scores WHERE venue_id = %(venue_id)s "
        "ORDER BY total_spent DESC LIMIT 50",
        "SELECT 50",
        1,
    ),
    Question(
        "a venue's counts by segment",
        "SELECT segment, count(*) FROM customer_rfm_scores WHERE venue_id = %(venue_id)s "
        "GROUP BY segment",
        OF_VENUE,
        3,
    ),
    Question(
        "a customer over all venues",
        "SELECT * FROM customer_lifetime_value WHERE customer_id = %(customer_id)s",
        "SELECT count(*) FROM customer_rfm_state WHERE customer_id = %(customer_id)s",
        3,
    ),
)


@dataclass(frozen=True)
class Read:
    """The cost of a question: median seconds on both sides, and rows of the state."""

    question: Question
    seconds: float
    plain_seconds: float
    rows_read: int
    rows_needed: int
    nodes: str


def measure_reads(server: PostgresServer, database: str) -> list[Read]:
    """Ask each question about the largest venue and its customers, alternating between both sides.

    The time ends when the whole answer has arrived. Nothing is prepared. The reader's tenant is set
    once, before the measurement.
    """
    with (
        psycopg.connect(server.superuser_uri(database), autocommit=True) as plain,
        psycopg.connect(server.uri(database, "analytics_reader"), autocommit=True) as reader,
    ):
        _fill_plain_tables(plain)
        row = plain.execute(
            "SELECT venue_id, tenant_id, array_agg(customer_id) FROM public.customer_rfm_state "
            "GROUP BY venue_id, tenant_id ORDER BY count(*) DESC LIMIT 1"
        ).fetchone()
        if row is None:
            raise LookupError(f"{database}: nothing was scored")
        venue_id, tenant_id, customers = row
        reader.execute("SELECT set_config('app.current_tenant_id', %s, FALSE)", [str(tenant_id)])
        return [_ask(question, reader, plain, venue_id, customers) for question in QUESTIONS]


def _ask(
    question: Question,
    reader: psycopg.Connection[Any],
    plain: psycopg.Connection[Any],
    venue_id: UUID,
    customers: list[UUID],
) -> Read:
    names = _names(venue_id, customers)
    first = next(names)
    explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + question.query
    (plan,) = reader.execute(explain, first).fetchone() or ([],)
    (needed,) = plain.execute(question.needs, first).fetchone() or (0,)
    nodes = [node for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") == STATE]
    seconds: tuple[list[float], list[float]] = ([], [])
    began = time.monotonic()
    while len(seconds[0]) < AT_LEAST or (
        len(seconds[0]) < AT_MOST and time.monotonic() - began < SECONDS_A_READ
    ):
        asked = next(names)
        for connection, taken in zip((reader, plain), seconds, strict=True):
            start = time.perf_counter()
            connection.execute(question.query, asked, prepare=False)
            taken.append(time.perf_counter() - start)
    return Read(
        question,
        median(seconds[0]),
        median(seconds[1]),
        round(sum(map(_rows_read, nodes))),
        needed,
        ", ".join(sorted({node["Node Type"] for node in nodes})),
    )


def _names(venue_id: UUID, customers: list[UUID]) -> Iterator[dict[str, UUID]]:
    while True:
        for customer_id in customers[:: max(len(customers) // 500, 1)]:
            yield {"venue_id": venue_id, "customer_id": customer_id}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _rows_read(node: dict[str, Any]) -> float:
    dropped = ["Rows Removed by Filter", "Rows Removed by Index Recheck"]
    a_loop = node["Actual Rows"] + sum(node.get(name, 0) for name in dropped)
    return float(a_loop * node["Actual Loops"])


def _fill_plain_tables(plain: psycopg.Connection[Any]) -> None:
    """Copy the rows of the views into tables of the audited form."""
    plain.execute("CREATE SCHEMA plain")
    plain.execute("SET search_path = plain, public")
    plain.execute(sql_file("original_tables"))
    for table in TABLES:
        (columns,) = plain.execute(
            "SELECT string_agg(column_name, ', ' ORDER BY ordinal_position) "
            "FROM information_schema.columns WHERE table_schema = 'plain' AND table_name = %s",
            [table],
        ).fetchone() or ("",)
        plain.execute(f"INSERT INTO plain.{table} SELECT {columns} FROM public.{table}")  # noqa: S608
        plain.execute(f"VACUUM ANALYZE plain.{table}")
    plain.execute("VACUUM ANALYZE public.customer_rfm_state, public.venue_rfm_state")
