"""What happens to one venue: look, score, summarise."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from venue_analytics.database.statements import statement
from venue_analytics.harness import TransientError, VenueResult, VenueRun
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings


def score_venue(run: VenueRun[RfmScoringSettings]) -> VenueResult:
    """Score all customers of one venue anew, writing only what differs.

    1. Refuse a venue whose scores are another tenant's, and a source not complete up to as_of.
    2. Settle the venue's currency.
    3. Score its customers, summarise its segments, set its as_of.

    Raises:
        TransientError: the source is not loaded up to as_of yet, or the venue's scores are
            another tenant's.
    """
    connection, venue = run.connection, run.venue
    names = {"venue_id": venue.venue_id, "tenant_id": venue.tenant_id, "as_of": run.as_of}
    _execute(connection, "claim_venue", names)
    row = _execute(connection, "venue_state", names).fetchone()
    if row is None:
        raise TransientError(
            f"the scores of venue {venue.name} ({venue.venue_id}) belong to another tenant than "
            f"{venue.tenant_id}, under which the source has it"
        )
    (main_currency,) = row
    _refuse_stale_source(run, names)
    main_currency = main_currency or _first(_execute(connection, "main_currency", names))
    currency = run.settings.currency or venue.currency or main_currency
    lookback = run.settings.lookback_days
    since = run.as_of - timedelta(days=lookback) if lookback else None
    row = _execute(
        connection,
        "score",
        names | {"currency": currency, "since": since} | thresholds(run.settings),
    ).fetchone()
    if row is None:
        raise LookupError(f"venue {venue.name}: scoring gave no row")
    rows_read, population, rows_written, rows_removed, left_out = row
    _execute(connection, "summarize", names)
    _execute(
        connection,
        "set_as_of",
        names
        | {
            "currency": currency,
            "main_currency": main_currency,
            "rules_hash": run.settings.rules_hash(),
        },
    )
    segments = _execute(connection, "segments", names).fetchall()
    return VenueResult(
        rows_read=rows_read,
        rows_written=rows_written,
        rows_unchanged=population - rows_written,
        rows_removed=rows_removed,
        left_out=left_out,
        summary={
            "customers": sum(count for _, count, _ in segments),
            "segments": {name: count for name, count, _ in segments},
            "revenue": str(sum(revenue for _, _, revenue in segments)),
            "currency": currency,
        },
    )


def remove(connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
    """Delete all that is kept of a venue; gives the number of customers' rows."""
    names = {"tenant_id": tenant_id, "venue_id": venue_id}
    removed = _execute(connection, "remove_scores", names).rowcount
    _execute(connection, "remove_segments", names)
    _execute(connection, "remove_venue", names)
    return removed


def venues_held(connection: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    """Give the venues of a tenant that have scores."""
    rows = _execute(connection, "venues_held", {"tenant_id": tenant_id}).fetchall()
    return [venue_id for (venue_id,) in rows]


def _refuse_stale_source(run: VenueRun[RfmScoringSettings], names: dict[str, Any]) -> None:
    loaded_through = _first(_execute(run.connection, "loaded_through", names))
    if loaded_through is None or loaded_through < run.as_of:
        raise TransientError(
            f"the source of tenant {run.venue.tenant_id} is loaded through {loaded_through}, "
            f"and as_of is {run.as_of}: scores would miss the orders between"
        )


def thresholds(settings: RfmScoringSettings) -> dict[str, Any]:
    """Give the thresholds under the names that score.sql binds."""
    bounds = {
        "recency": settings.recency_days,
        "frequency": settings.frequency_purchases,
        "monetary": settings.monetary_percent,
    }
    return {
        f"{kind}_{score}": bound
        for kind, values in bounds.items()
        for score, bound in zip((5, 4, 3, 2), values, strict=True)
    } | settings.model_dump(
        include={
            "vip_min_total",
            "regular_min_total",
            "at_risk_min_total",
            "at_risk_max_days",
            "high_risk_after_days",
            "high_risk_min_purchases",
            "medium_risk_after_days",
            "medium_risk_min_purchases",
        }
    )


def _first(cursor: psycopg.Cursor[Any]) -> Any:
    row = cursor.fetchone()
    return row[0] if row else None


def _execute(
    connection: psycopg.Connection, name: str, parameters: dict[str, Any]
) -> psycopg.Cursor[Any]:
    return connection.execute(statement(__package__, name), parameters)
