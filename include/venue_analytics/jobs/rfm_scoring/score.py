"""What happens to one venue: score its customers, note who moved, summarize its segments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness import TransientError, VenueResult, VenueRun
from venue_analytics.jobs.rfm_scoring.rules import bound_names, rules_of
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings


@dataclass(frozen=True)
class VenueState:
    """The row of `venue_state.sql`.

    Attributes:
        as_of: of the venue's scores; None before its first build.
        currency: ISO 4217, of the purchases that count.
        main_currency: that of most of its sales at its first build.
        rules_before: hash of the rules in force before the night that is asked about; None if
            there was no build before it.
        currency_before: of the purchases that counted then.
    """

    as_of: datetime | None = None
    currency: str | None = None
    main_currency: str | None = None
    rules_before: str | None = None
    currency_before: str | None = None


@dataclass(frozen=True)
class Scored:
    """The row of `score.sql`."""

    sales: int
    population: int
    shown_before_or_after: int
    written: int
    removed: int
    left_out: dict[str, int]
    movements: list[dict[str, Any]]


def score_venue(run: VenueRun[RfmScoringSettings]) -> VenueResult:
    """Bring one venue's scores to as_of: build them from the source, write what differs.

    1. Refuse a venue whose scores are another tenant's, and a source not complete up to as_of.
    2. Score its customers, and note who moved between segments.
    3. Forget the erased, summarize the segments, note rules and as_of.

    Raises:
        TransientError: the source is not loaded up to as_of yet, or the venue's scores are
            another tenant's.
    """
    connection, venue, settings = run.connection, run.venue, run.settings
    names = _names(run)
    _execute(connection, "claim_venue", names)
    state = _state(run)
    if state is None:
        raise TransientError(
            f"the scores of venue {venue.name} ({venue.venue_id}) belong to another tenant than "
            f"{venue.tenant_id}, under which the source has it"
        )
    _refuse_stale_source(run)
    main_currency = state.main_currency or _main_currency(run)
    currency = settings.currency or venue.currency or main_currency
    scored = _score(run, currency, state)
    rules_hash = settings.rules_hash()
    rules_are_new = (rules_hash, currency) != (state.rules_before, state.currency_before)
    names |= {
        "codes": rules_of(settings).codes,
        "currency": currency,
        "main_currency": main_currency,
        "rules_hash": rules_hash,
        "rules": Jsonb(settings.rules_as_json()),
        "rules_are_new": rules_are_new,
    }
    _execute(connection, "forget_erased", names)
    _execute(connection, "summarize", names)
    _execute(connection, "forget_rules", names)
    if rules_are_new:
        _execute(connection, "note_rules", names)
    _execute(connection, "set_as_of", names)
    segments = _execute(connection, "segments", names).fetchall()
    return VenueResult(
        rows_read=scored.sales,
        rows_written=scored.written,
        rows_unchanged=scored.population - scored.written,
        rows_removed=scored.removed,
        left_out=scored.left_out,
        summary={
            "customers": sum(count for _, count, _ in segments),
            "segments": {name: count for name, count, _ in segments},
            "revenue": str(sum(revenue for _, _, revenue in segments)),
            "currency": currency,
        },
    )


def preview_venue(run: VenueRun[RfmScoringSettings]) -> VenueResult:
    """Say who would move between segments if these settings held; write nothing.

    Compares with the scores that stand, as of their own moment: nobody moves for age.

    Raises:
        TransientError: the source is not loaded up to that moment.
    """
    state = _state(run) or VenueState()
    if state.as_of is not None:
        run = replace(run, as_of=state.as_of)
    _refuse_stale_source(run)
    main_currency = state.main_currency or _main_currency(run)
    currency = run.settings.currency or run.venue.currency or main_currency
    scored = _score(run, currency, state, dry_run=True)
    return VenueResult(
        rows_read=scored.sales,
        rows_unchanged=scored.population,
        left_out=scored.left_out,
        summary={
            "customers": scored.shown_before_or_after,
            "movements": scored.movements,
            "currency": currency,
            # whoever leaves is counted with what stands, which is in this one
            "currency_before": state.currency,
            "as_of": run.as_of.isoformat(),
        },
    )


def remove(connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
    """Delete all that is kept of a venue; return the number of customers' rows."""
    names = {"tenant_id": tenant_id, "venue_id": venue_id}
    removed = _execute(connection, "remove_scores", names).rowcount
    for rest in ("remove_segments", "remove_history", "remove_venue"):
        _execute(connection, rest, names)
    return removed


def venues_held(connection: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    """Return the venues of a tenant that have scores."""
    rows = _execute(connection, "venues_held", {"tenant_id": tenant_id}).fetchall()
    return [venue_id for (venue_id,) in rows]


def _score(
    run: VenueRun[RfmScoringSettings],
    currency: str | None,
    state: VenueState,
    *,
    dry_run: bool = False,
) -> Scored:
    settings = run.settings
    lookback = settings.lookback_days
    names = _names(run) | bound_names(settings)
    names |= {
        "since": run.as_of - timedelta(days=lookback) if lookback else None,
        "currency": currency,
        "dry_run": dry_run,
        "is_first": not dry_run and state.rules_before is None,
        "by_rules": state.rules_before != settings.rules_hash()
        or state.currency_before not in (None, currency),
    }
    with run.connection.cursor(row_factory=class_row(Scored)) as cursor:
        row = cursor.execute(statement(__package__, "score"), names).fetchone()
    if row is None:
        raise LookupError(f"venue {run.venue.name}: score.sql returned no row")
    return row


def _state(run: VenueRun[RfmScoringSettings]) -> VenueState | None:
    with run.connection.cursor(row_factory=class_row(VenueState)) as cursor:
        return cursor.execute(statement(__package__, "venue_state"), _names(run)).fetchone()


def _refuse_stale_source(run: VenueRun[RfmScoringSettings]) -> None:
    row = _execute(run.connection, "loaded_through", _names(run)).fetchone()
    loaded_through = row[0] if row else None
    if loaded_through is None or loaded_through < run.as_of:
        raise TransientError(
            f"the source of tenant {run.venue.tenant_id} is loaded through {loaded_through}, "
            f"and as_of is {run.as_of}: scores would miss the orders between"
        )


def _main_currency(run: VenueRun[RfmScoringSettings]) -> str | None:
    row = _execute(run.connection, "main_currency", _names(run)).fetchone()
    return row[0] if row else None


def _names(run: VenueRun[RfmScoringSettings]) -> dict[str, Any]:
    venue = run.venue
    return {"venue_id": venue.venue_id, "tenant_id": venue.tenant_id, "as_of": run.as_of}


def _execute(
    connection: psycopg.Connection, name: str, parameters: dict[str, Any]
) -> psycopg.Cursor[Any]:
    return connection.execute(statement(__package__, name), parameters)
