"""What happens to one venue: look, score, summarise."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from venue_analytics.database.statements import statement
from venue_analytics.harness import BuildMode, TransientError, VenueResult, VenueRun
from venue_analytics.jobs.rfm_scoring.rules import bound_names, rules_of
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings
from venue_analytics.jobs.rfm_scoring.state import VenueState, lookback_begin, venue_states
from venue_analytics.jobs.rfm_scoring.survey import VenueSurvey, survey_one
from venue_analytics.jobs.rfm_scoring.survey import loaded_through as source_loaded_through

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """What `score.sql` found and did: its columns.

    And whether history may name the erased; and whether what then stands agrees with the source.
    """

    sales: int
    population: int
    shown_before_or_after: int
    written: int
    removed: int
    fingerprint: int
    left_out: dict[str, int]
    movements: list[dict[str, Any]]
    remembers_erased: bool = True
    agrees: bool = True


def score_venue(run: VenueRun[RfmScoringSettings]) -> VenueResult:
    """Bring one venue's scores to as_of, writing only what differs.

    1. Refuse a venue whose scores are another tenant's, and a source not complete up to as_of.
    2. Build those anew whom the source has changed since the last night, and rank all. Where the
       state may not be leaned on, or its fingerprint then differs from the source's, build all.
    3. Forget the erased, summarise the segments, note rules and as_of.

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
    why_full = state.why_full(venue, settings, run.as_of, run.full)
    written = removed = 0
    if why_full is None:
        main_currency, currency = state.main_currency, state.currency
        done = _score_touched(run, state)
        if not done.agrees:
            why_full = "it differed from the source"
            written, removed = done.written, done.removed
    if why_full is not None:
        main_currency = state.main_currency or _main_currency(run)
        currency = settings.currency or venue.currency or main_currency
        done = _score(run, currency, state)
    written, removed = written + done.written, removed + done.removed
    names |= {
        "codes": rules_of(settings).codes,
        "is_full": why_full is not None,
        "currency": currency,
        "main_currency": main_currency,
        "rules_hash": settings.rules_hash(),
        "rules": Jsonb(settings.rules_as_json()),
    }
    if done.remembers_erased:
        _execute(connection, "forget_erased", names)
    _execute(connection, "summarize", names)
    if why_full is not None:
        # only then can rules have changed, or a night be gone back to
        in_force = (state.rules_before, state.currency_before)
        names["rules_are_new"] = (names["rules_hash"], currency) != in_force
        _execute(connection, "forget_rules", names)
        if names["rules_are_new"]:
            _execute(connection, "note_rules", names)
    _execute(connection, "set_as_of", names)
    segments = _execute(connection, "segments", names).fetchall()
    return VenueResult(
        mode=BuildMode.INCREMENTAL if why_full is None else BuildMode.FULL,
        reason=None if why_full is None else f"full build ({why_full})",
        rows_read=done.sales,
        rows_written=written,
        rows_unchanged=max(done.population - written, 0),
        rows_removed=removed,
        left_out=done.left_out,
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
    state = _state(run)
    if state is not None and state.as_of is not None:
        run = replace(run, as_of=state.as_of)
    _refuse_stale_source(run)
    main_currency = (state and state.main_currency) or _main_currency(run)
    currency = run.settings.currency or run.venue.currency or main_currency
    done = _score(run, currency, state, dry_run=True)
    return VenueResult(
        mode=BuildMode.FULL,
        rows_read=done.sales,
        rows_unchanged=done.population,
        left_out=done.left_out,
        summary={
            "customers": done.shown_before_or_after,
            "movements": done.movements,
            "currency": currency,
            # whoever leaves is counted with what stands, which is in this one
            "currency_before": state and state.currency,
            "as_of": run.as_of.isoformat(),
        },
    )


def remove(connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
    """Delete all that is kept of a venue; gives the number of customers' rows."""
    names = {"tenant_id": tenant_id, "venue_id": venue_id}
    removed = _execute(connection, "remove_scores", names).rowcount
    for rest in ("remove_segments", "remove_history", "remove_venue"):
        _execute(connection, rest, names)
    return removed


def venues_held(connection: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    """Give the venues of a tenant that have scores."""
    rows = _execute(connection, "venues_held", {"tenant_id": tenant_id}).fetchall()
    return [venue_id for (venue_id,) in rows]


def _score_touched(run: VenueRun[RfmScoringSettings], state: VenueState) -> Scored:
    """Build the touched anew; say whether what then stands agrees with the source.

    A survey of several venues together is of an earlier moment than this transaction's: before a
    difference is believed, the venue is surveyed again inside it.
    """
    surveyed: VenueSurvey | None = run.survey
    written = removed = 0
    for survey in (surveyed, None) if surveyed else (None,):
        found = survey or survey_one(run.connection, run.venue, state, run.settings, run.as_of)
        done = _score(run, state.currency, state, touched=found.customers)
        written, removed = written + done.written, removed + done.removed
        done = replace(done, written=written, removed=removed)
        if done.fingerprint == found.fingerprint:
            return replace(
                done,
                sales=found.sales,
                left_out=found.left_out,
                # whoever has been erased since the last night has just been removed
                remembers_erased=found.remembers_erased or removed > 0,
            )
    log.warning(
        "%s: its scores differed from the source in what no updated_at tells (an event or a "
        "customer's orders that moved, rows that are gone, a transaction of more than %d minutes): "
        "all is built anew",
        run.venue.name,
        run.settings.overlap_minutes,
    )
    return replace(done, agrees=False)


def _score(
    run: VenueRun[RfmScoringSettings],
    currency: str | None,
    state: VenueState | None,
    *,
    touched: str | None = None,
    dry_run: bool = False,
) -> Scored:
    """Score a venue, building all of its customers from the source, or the touched alone."""
    settings, rules_hash = run.settings, run.settings.rules_hash()
    before = (state.rules_before, state.currency_before) if state else (None, None)
    names = _names(run) | bound_names(settings)
    names |= {
        "touched": touched,
        "since": lookback_begin(settings, run.as_of),
        "currency": currency,
        "dry_run": dry_run,
        "is_first": not dry_run and before[0] is None,
        "by_rules": before[0] != rules_hash or before[1] not in (None, currency),
    }
    with run.connection.cursor(row_factory=class_row(Scored)) as cursor:
        row = cursor.execute(statement(__package__, "score"), names).fetchone()
    if row is None:
        raise LookupError(f"venue {run.venue.name}: scoring gave no row")
    return row


def _state(run: VenueRun[RfmScoringSettings]) -> VenueState | None:
    venue_id = run.venue.venue_id
    return venue_states(run.connection, run.venue.tenant_id, [venue_id], run.as_of).get(venue_id)


def _refuse_stale_source(run: VenueRun[RfmScoringSettings]) -> None:
    loaded_through = source_loaded_through(run.connection, run.venue.tenant_id)
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
