"""A job of three steps, which shows that a venue resumes after the last step that committed.

It counts a venue's orders in pieces, ranks its customers, and publishes both. Every step inserts a
row into `walk` in the transaction of its data, so a step that ran twice has two rows.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
from pydantic import Field

from venue_analytics.harness import (
    SHAPES_RESULTS,
    Continue,
    Job,
    UnitResult,
    UnitRun,
    VenueSettings,
)

TABLES = """
CREATE TABLE walk (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id uuid, venue_id uuid, as_of timestamptz, bonus integer, step text, piece integer
);
CREATE TABLE counted (
    tenant_id uuid, venue_id uuid, customer_id uuid, purchases integer, as_of timestamptz,
    bonus integer, PRIMARY KEY (venue_id, customer_id)
);
CREATE TABLE ranked (
    tenant_id uuid, venue_id uuid, customer_id uuid, place integer, as_of timestamptz,
    bonus integer, PRIMARY KEY (venue_id, customer_id)
);
CREATE TABLE published (
    tenant_id uuid, venue_id uuid PRIMARY KEY, customers integer, purchases integer,
    as_of timestamptz, bonus integer
);
GRANT SELECT, INSERT, UPDATE, DELETE ON walk, counted, ranked, published TO analytics_jobs;
"""
#: The tables of the job's results.
RESULTS = ("counted", "ranked", "published")
PIECES = 2


class ThreeStepsSettings(VenueSettings):
    """Settings with a rule that shapes the results: a bonus for every customer."""

    bonus: int = Field(
        0,
        ge=0,
        le=1_000,
        description="Purchases that every customer is given.",
        json_schema_extra={**SHAPES_RESULTS, "unit": "purchases"},
    )


Run = UnitRun[ThreeStepsSettings]


def count(run: Run) -> Continue | None:
    """Count the purchases of one half of the customers, and of the other half the next time."""
    piece = (run.cursor or {"piece": 0})["piece"]
    _note(run, "count", piece)
    if piece == 0:
        _execute(run, "DELETE FROM counted WHERE venue_id = %(venue_id)s")
    _execute(
        run,
        "INSERT INTO counted SELECT o.tenant_id, o.venue_id, o.customer_id, "
        "count(*) + %(bonus)s, %(as_of)s, %(bonus)s FROM source.orders AS o "
        "WHERE o.tenant_id = %(tenant_id)s AND o.venue_id = %(venue_id)s "
        "AND o.ordered_at < %(as_of)s "
        "AND get_byte(uuid_send(o.customer_id), 15) %% %(pieces)s = %(piece)s "
        "GROUP BY o.tenant_id, o.venue_id, o.customer_id",
        piece=piece,
        pieces=PIECES,
    )
    return Continue({"piece": piece + 1}) if piece + 1 < PIECES else None


def rank(run: Run) -> None:
    """Rank the customers by their purchases."""
    _note(run, "rank")
    _execute(run, "DELETE FROM ranked WHERE venue_id = %(venue_id)s")
    _execute(
        run,
        "INSERT INTO ranked SELECT c.tenant_id, c.venue_id, c.customer_id, "
        "rank() OVER (ORDER BY c.purchases DESC), c.as_of, c.bonus FROM counted AS c "
        "WHERE c.venue_id = %(venue_id)s",
    )


def publish(run: Run) -> UnitResult:
    """Publish the sums."""
    _note(run, "publish")
    _execute(run, "DELETE FROM published WHERE venue_id = %(venue_id)s")
    _execute(
        run,
        "INSERT INTO published SELECT r.tenant_id, r.venue_id, count(*), sum(c.purchases), "
        "r.as_of, r.bonus FROM ranked AS r JOIN counted AS c USING (venue_id, customer_id) "
        "WHERE r.venue_id = %(venue_id)s GROUP BY r.tenant_id, r.venue_id, r.as_of, r.bonus",
    )
    return UnitResult(rows_written=1, summary={"bonus": run.settings.bonus})


def remove(connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
    """Delete the results of a venue."""
    for table in ("counted", "ranked"):
        connection.execute(f"DELETE FROM {table} WHERE venue_id = %s", [venue_id])  # noqa: S608
    return connection.execute("DELETE FROM published WHERE venue_id = %s", [venue_id]).rowcount


def units_held(connection: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    """Return the venues of a tenant that have results."""
    rows = connection.execute("SELECT venue_id FROM published WHERE tenant_id = %s", [tenant_id])
    return [venue_id for (venue_id,) in rows]


THREE_STEPS = Job(
    "three_steps",
    ThreeStepsSettings,
    {"count": count, "rank": rank, "publish": publish},
    remove,
    units_held,
)


def _note(run: Run, step: str, piece: int = 0) -> None:
    _execute(
        run,
        "INSERT INTO walk (tenant_id, venue_id, as_of, bonus, step, piece) "
        "VALUES (%(tenant_id)s, %(venue_id)s, %(as_of)s, %(bonus)s, %(step)s, %(piece)s)",
        step=step,
        piece=piece,
    )


def _execute(run: Run, query: str, **parameters: Any) -> None:
    run.connection.execute(
        query,  # type: ignore[arg-type]
        {
            "tenant_id": run.unit.tenant_id,
            "venue_id": run.unit.id,
            "as_of": run.as_of,
            "bonus": run.settings.bonus,
        }
        | parameters,
    )
