"""What happens to venues: score their customers, note who moved, summarize their segments."""

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
from venue_analytics.harness import GroupRun, TransientError, Venue, VenueResult, VenueRun
from venue_analytics.jobs.rfm_scoring.rules import bound_names
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

#: Venues that take no longer, all together, share a plan: making one takes ten milliseconds.
TINY_SECONDS = 0.05
#: All that is kept of a venue.
TABLES = (
    "customer_rfm_state",
    "customer_segments",
    "customer_segment_change",
    "venue_rfm_rules",
    "venue_rfm_state",
)
#: Runs a statement by the name of its file; returns its rows.
Query = Callable[..., list[Any]]


def score_venues(run: GroupRun[RfmScoringSettings]) -> dict[UUID, VenueResult]:
    """Bring the scores of a tenant's venues to as_of: build them anew, write what differs.

    Raises:
        TransientError: the source is not loaded up to as_of yet, or a venue's scores are another
            tenant's.
    """
    is_tiny = sum(venue.expected_seconds or 1 for venue in run.venues) < TINY_SECONDS
    if is_tiny:
        run.connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    query = partial(_query, run.connection, run.tenant_id, prepare=is_tiny)
    venue_ids = [venue.venue_id for venue in run.venues]
    _refuse_stale_source(query, run.tenant_id, run.as_of)
    query("claim_venues", venue_ids=venue_ids)
    scored = {one.venue_id: one for one in _score(query, run.venues, run.settings, run.as_of)}
    for venue in run.venues:
        if venue.venue_id not in scored:
            raise TransientError(
                f"the scores of venue {venue.name} ({venue.venue_id}) belong to another tenant "
                f"than {run.tenant_id}, under which the source has it",
                venue_id=venue.venue_id,
            )
    query("forget_erased", venue_ids=venue_ids)
    return {
        venue_id: VenueResult(
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


def preview_venue(run: VenueRun[RfmScoringSettings]) -> VenueResult:
    """Say who would move between segments if these settings held; write nothing.

    Compares with the scores that stand, as of their own moment: nobody moves for age.

    Raises:
        TransientError: the source is not loaded up to that moment.
    """
    tenant_id = run.venue.tenant_id
    query = partial(_query, run.connection, tenant_id)
    standing = next(iter(query("standing", venue_id=run.venue.venue_id)), None)
    as_of = (standing and standing.as_of) or run.as_of
    _refuse_stale_source(query, tenant_id, as_of)
    (one,) = _score(query, [run.venue], run.settings, as_of, dry_run=True)
    return VenueResult(
        rows_read=one.sales,
        rows_unchanged=one.population,
        left_out=one.left_out,
        summary={
            "customers": one.shown_before_or_after,
            "movements": one.movements,
            "currency": one.currency,
            # whoever leaves is counted with what stands, which is in this one
            "currency_before": standing and standing.currency,
            "as_of": as_of.isoformat(),
        },
    )


def remove(connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
    """Delete all that is kept of a venue; return the number of customers' rows."""
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
    venues: Sequence[Venue],
    settings: RfmScoringSettings,
    as_of: datetime,
    *,
    dry_run: bool = False,
) -> list[Any]:
    return query(
        "score",
        as_of=as_of,
        venue_ids=[venue.venue_id for venue in venues],
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
            f"the source of tenant {tenant_id} is loaded through {through}, and as_of is {as_of}: "
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
