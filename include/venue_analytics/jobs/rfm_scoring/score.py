"""What happens to venues: score their customers, note who moved, summarize their segments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
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

#: All that is kept of a venue.
TABLES = (
    "customer_rfm_state",
    "customer_segments",
    "customer_segment_change",
    "venue_rfm_rules",
    "venue_rfm_state",
)


def score_venues(run: GroupRun[RfmScoringSettings]) -> dict[UUID, VenueResult]:
    """Bring the scores of a tenant's venues to as_of: build them anew, write what differs.

    Raises:
        TransientError: the source is not loaded up to as_of yet, or a venue's scores are another
            tenant's.
    """
    connection, tenant_id = run.connection, run.tenant_id
    _refuse_stale_source(connection, tenant_id, run.as_of)
    names = {"tenant_id": tenant_id, "venue_ids": [venue.venue_id for venue in run.venues]}
    connection.execute(statement(__package__, "claim_venues"), names)
    scored = {
        one.venue_id: one
        for one in _score(connection, tenant_id, run.venues, run.settings, run.as_of)
    }
    for venue in run.venues:
        if venue.venue_id not in scored:
            raise TransientError(
                f"the scores of venue {venue.name} ({venue.venue_id}) belong to another tenant "
                f"than {tenant_id}, under which the source has it",
                venue_id=venue.venue_id,
            )
    connection.execute(statement(__package__, "forget_erased"), names)
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
    connection, tenant_id = run.connection, run.venue.tenant_id
    names = {"tenant_id": tenant_id, "venue_id": run.venue.venue_id}
    standing = connection.execute(statement(__package__, "standing"), names).fetchone()
    as_of, currency_before = standing or (None, None)
    as_of = as_of or run.as_of
    _refuse_stale_source(connection, tenant_id, as_of)
    (one,) = _score(connection, tenant_id, [run.venue], run.settings, as_of, dry_run=True)
    return VenueResult(
        rows_read=one.sales,
        rows_unchanged=one.population,
        left_out=one.left_out,
        summary={
            "customers": one.shown_before_or_after,
            "movements": one.movements,
            "currency": one.currency,
            # whoever leaves is counted with what stands, which is in this one
            "currency_before": currency_before,
            "as_of": as_of.isoformat(),
        },
    )


def remove(connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
    """Delete all that is kept of a venue; return the number of customers' rows."""
    query = sql.SQL("DELETE FROM public.{} WHERE venue_id = %s AND tenant_id = %s")
    removed = {
        table: connection.execute(query.format(sql.Identifier(table)), [venue_id, tenant_id])
        for table in TABLES
    }
    return removed["customer_rfm_state"].rowcount


def venues_held(connection: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    """Return the venues of a tenant that have scores."""
    rows = connection.execute(statement(__package__, "venues_held"), {"tenant_id": tenant_id})
    return [venue_id for (venue_id,) in rows]


def _score(
    connection: psycopg.Connection,
    tenant_id: UUID,
    venues: Sequence[Venue],
    settings: RfmScoringSettings,
    as_of: datetime,
    *,
    dry_run: bool = False,
) -> list[Any]:
    """Run `score.sql`; return its rows."""
    names = bound_names(settings, as_of) | {
        "tenant_id": tenant_id,
        "as_of": as_of,
        "venue_ids": [venue.venue_id for venue in venues],
        "currencies": [settings.currency or venue.currency for venue in venues],
        "rules_hash": settings.rules_hash(),
        "rules": Jsonb(settings.rules_as_json()),
        "dry_run": dry_run,
    }
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(statement(__package__, "score"), names).fetchall()


def _refuse_stale_source(connection: psycopg.Connection, tenant_id: UUID, as_of: datetime) -> None:
    row = connection.execute(
        statement(__package__, "loaded_through"), {"tenant_id": tenant_id}
    ).fetchone()
    loaded_through = row[0] if row else None
    if loaded_through is None or loaded_through < as_of:
        raise TransientError(
            f"the source of tenant {tenant_id} is loaded through {loaded_through}, and as_of is "
            f"{as_of}: scores would miss the orders between"
        )
