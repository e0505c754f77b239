"""Score the customers of venues, record changes of segment, and summarize the segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness import (
    GroupRun,
    Table,
    TransientError,
    Unit,
    UnitResult,
    UnitRun,
)
from venue_analytics.jobs.rfm_scoring.rules import bound_names
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

#: A group of venues that is expected to take less uses a generic plan: planning alone takes 10 ms.
TINY_SECONDS = 0.05
#: The tables with rows of a venue.
TABLES = (
    "customer_rfm_state",
    "customer_segments",
    "customer_segment_change",
    "venue_rfm_rules",
    "venue_rfm_state",
)
#: Runs a statement by the name of its file, and returns its rows.
Query = Callable[..., list[Any]]


def score_venues(run: GroupRun[RfmScoringSettings]) -> dict[UUID, UnitResult]:
    """Score the customers of a tenant's venues as of as_of; write only rows that differ.

    Raises:
        TransientError: the source is not loaded up to as_of yet, or a venue's scores belong to
            another tenant.
    """
    is_tiny = sum(venue.expected_seconds or 1 for venue in run.units) < TINY_SECONDS
    if is_tiny:
        run.connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    query = partial(_query, run.connection, run.tenant_id, prepare=is_tiny)
    venue_ids = [venue.id for venue in run.units]
    _refuse_stale_source(query, run.tenant_id, run.as_of)
    query("claim_venues", venue_ids=venue_ids)
    scored = {one.venue_id: one for one in _score(query, run.units, run.settings, run.as_of)}
    for venue in run.units:
        if venue.id not in scored:
            raise TransientError(
                f"the scores of venue {venue.name} ({venue.id}) belong to another tenant; "
                f"in the source its tenant is {run.tenant_id}",
                unit_id=venue.id,
            )
    query("forget_erased", venue_ids=venue_ids)
    return {
        venue_id: UnitResult(
            rows_read=one.sales,
            rows_written=one.written,
            rows_unchanged=one.population - one.written,
            rows_removed=one.removed,
            left_out=one.left_out,
            summary={
                "customers": sum(one.segments.values()),
                "segments": one.segments,
                "revenue": one.revenue,
                "currency": one.currency,
            },
        )
        for venue_id, one in scored.items()
    }


def preview_venue(run: UnitRun[RfmScoringSettings]) -> UnitResult:
    """Return the movements between segments that these settings would cause; write nothing.

    The result is as of the same moment as the current scores, so that no customer moves by age.

    Raises:
        TransientError: the source is not loaded up to that moment.
    """
    tenant_id = run.unit.tenant_id
    query = partial(_query, run.connection, tenant_id)
    standing = next(iter(query("standing", venue_id=run.unit.id)), None)
    as_of = (standing and standing.as_of) or run.as_of
    _refuse_stale_source(query, tenant_id, as_of)
    (one,) = _score(query, [run.unit], run.settings, as_of, dry_run=True)
    return UnitResult(
        rows_read=one.sales,
        rows_unchanged=one.population,
        left_out=one.left_out,
        summary={
            "customers": one.shown_before_or_after,
            "movements": one.movements,
            "currency": one.currency,
            # of customers who would no longer count: their spend is that of the current scores
            "currency_before": standing and standing.currency,
            "as_of": as_of.isoformat(),
        },
    )


def best_customers(connection: psycopg.Connection, tenant_id: UUID, customers: int) -> Table:
    """Return a table of the tenant's customers who spent most."""
    rows = _query(connection, tenant_id, "best_customers", customers=customers)
    return Table(
        ("Best customers", "Venue", "Segment", "R", "F", "M", "Purchases", "Spent", "Days ago"),
        [
            (
                *map(str, row[:7]),
                f"{row.total_spent:,.2f} {row.currency or ''}",
                str(row.days_since_last_purchase),
            )
            for row in rows
        ],
        numbers=("R", "F", "M", "Purchases", "Spent", "Days ago"),
    )


def remove(connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
    """Delete all rows of a venue; return the number of deleted customers."""
    text = sql.SQL("DELETE FROM public.{} WHERE venue_id = %s AND tenant_id = %s")
    removed = {
        table: connection.execute(text.format(sql.Identifier(table)), [venue_id, tenant_id])
        for table in TABLES
    }
    return removed["customer_rfm_state"].rowcount


def venues_held(connection: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    """Return the venues of a tenant that have scores."""
    return [row.venue_id for row in _query(connection, tenant_id, "venues_held")]


def _score(
    query: Query,
    venues: Sequence[Unit],
    settings: RfmScoringSettings,
    as_of: datetime,
    *,
    dry_run: bool = False,
) -> list[Any]:
    return query(
        "score",
        as_of=as_of,
        venue_ids=[venue.id for venue in venues],
        currencies=[settings.currency or venue.currency for venue in venues],
        rules_hash=settings.rules_hash(),
        rules=Jsonb(settings.rules_as_json()),
        dry_run=dry_run,
        **bound_names(settings, as_of),
    )


def _refuse_stale_source(query: Query, tenant_id: UUID, as_of: datetime) -> None:
    through = next((row.loaded_through for row in query("loaded_through")), None)
    if through is None or through < as_of:
        raise TransientError(
            f"the source of tenant {tenant_id} is loaded through {through}, but as_of is {as_of}: "
            "scores would miss the orders between"
        )


def _query(
    connection: psycopg.Connection,
    tenant_id: UUID,
    name: str,
    *,
    prepare: bool = False,
    **names: Any,
) -> list[Any]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute(
            statement(__package__, name), {"tenant_id": tenant_id} | names, prepare=prepare
        )
        return cursor.fetchall() if cursor.description else []
