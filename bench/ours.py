"""RFM scoring as this project does it: bare, and guarded as the command line runs it."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from datetime import datetime
from typing import Any

import psycopg
from bench.measuring import Measured, TimedCursor

from venue_analytics.command_line_run import run_job
from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.harness import VenueResult, VenueRun, VenueToDo, history
from venue_analytics.harness.batches import pack
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.redis_server import RedisAddress
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.tenant import one_moment, set_tenant
from venue_analytics.harness.venues import find_venues
from venue_analytics.jobs import RFM_SCORING
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

#: So that no venue has its turn to be built anew.
SETTINGS = RfmScoringSettings(full_rebuild_days=365)


def bare(uri: str, as_of: datetime, full: bool, expected: dict[str, float]) -> Measured:
    """Do the job's own steps, a transaction a venue; a tenant's venues are surveyed together.

    No lease, no token, no fence, no history.

    Args:
        uri: of the database.
        as_of: of the night.
        full: whether everybody is built anew.
        expected: seconds by venue's id, as the last night took; what plan reads from history.
    """
    with _connect(uri) as connection:
        began = time.monotonic()
        venues = [
            dataclasses.replace(venue, expected_seconds=expected.get(str(venue.venue_id)))
            for venue in find_venues(connection, RFM_SCORING).venues
        ]
        rows, modes = 0, Counter[str]()
        for batch in pack(venues, max_tasks=None):
            # without max_tasks, a batch is a tenant
            tenant_id = batch.venues[0].tenant_id
            surveys: Any = {}
            if len(batch.venues) > 1 and RFM_SCORING.survey is not None:
                to_do = [VenueToDo(venue, SETTINGS) for venue in batch.venues]
                with one_moment(connection):
                    set_tenant(connection, tenant_id)
                    surveys = RFM_SCORING.survey(connection, tenant_id, to_do, as_of, full)
            for venue in batch.venues:
                with one_moment(connection):
                    set_tenant(connection, tenant_id)
                    result = RFM_SCORING.steps[0](
                        VenueRun(
                            connection,
                            venue,
                            SETTINGS,
                            as_of,
                            force=False,
                            full=full,
                            set_aside=lambda *_: None,
                            survey=surveys.get(venue.venue_id),
                        )
                    )
                if not isinstance(result, VenueResult):
                    raise TypeError(f"the job has more steps than one: {result!r}")
                rows += result.rows_written
                modes[_mode(result.mode, result.reason)] += 1
        return Measured(
            time.monotonic() - began, rows=rows, statements=TimedCursor.seconds, modes=modes
        )


def guarded(uri: str, redis_uri: str, as_of: datetime) -> Measured:
    """Run the job as the command line does: leases, tokens, fence, history.

    How the venues were built is read from history.

    Raises:
        RuntimeError: a venue did not end well.
    """
    leases = Leases(RedisAddress.parse(redis_uri, name="bench").client(), RFM_SCORING.name)
    request = RunRequest(as_of=as_of)
    began = time.monotonic()
    run, unfinished = run_job(
        lambda: _connect(uri), leases, RFM_SCORING, SETTINGS, request, lambda *_: None
    )
    seconds = time.monotonic() - began
    if unfinished:
        raise RuntimeError("\n".join(unfinished[:5]))
    with _connect(uri) as connection:
        attempts = list(history.last_attempts(connection, run).values())
    return Measured(
        seconds,
        rows=sum(attempt.rows_written or 0 for attempt in attempts),
        statements=TimedCursor.seconds,
        modes=Counter(_mode(attempt.mode, attempt.reason) for attempt in attempts),
    )


def seconds_by_venue(uri: str) -> dict[str, float]:
    """Give what each venue took last, as plan reads it from history."""
    with _connect(uri) as connection:
        ids = [venue.venue_id for venue in find_venues(connection, RFM_SCORING).venues]
        durations = history.last_durations(connection, RFM_SCORING.name, ids)
    return {str(venue_id): seconds for venue_id, seconds in durations.items()}


def _connect(uri: str) -> psycopg.Connection[Any]:
    connection: psycopg.Connection[Any] = connect(DatabaseAddress.parse(uri, name="bench"))
    connection.cursor_factory = TimedCursor
    return connection


def _mode(mode: str | None, reason: str | None) -> str:
    return reason or str(mode)
