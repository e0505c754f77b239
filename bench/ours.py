"""RFM scoring as this project does it: bare, and guarded as the command line runs it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import psycopg
from bench.measuring import Measured, TimedCursor

from venue_analytics.command_line_run import run_job
from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.harness import VenueResult, VenueRun, history
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.redis_server import RedisAddress
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.tenant import one_moment, set_tenant
from venue_analytics.harness.venues import find_venues
from venue_analytics.jobs import RFM_SCORING
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

SETTINGS = RfmScoringSettings()


def bare(uri: str, as_of: datetime) -> Measured:
    """Do the job's own step, a transaction a venue: no lease, no token, no fence, no history.

    Args:
        uri: of the database.
        as_of: of the night.
    """
    with _connect(uri) as connection:
        began = time.monotonic()
        rows = 0
        for venue in find_venues(connection, RFM_SCORING).venues:
            with one_moment(connection):
                set_tenant(connection, venue.tenant_id)
                result = RFM_SCORING.steps[0](
                    VenueRun(
                        connection, venue, SETTINGS, as_of, force=False, set_aside=lambda *_: None
                    )
                )
            if not isinstance(result, VenueResult):
                raise TypeError(f"the job has more steps than one: {result!r}")
            rows += result.rows_written
        return Measured(time.monotonic() - began, rows=rows, statements=TimedCursor.seconds)


def guarded(uri: str, redis_uri: str, as_of: datetime) -> Measured:
    """Run the job as the command line does: leases, tokens, fence, history.

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
    )


def _connect(uri: str) -> psycopg.Connection[Any]:
    connection: psycopg.Connection[Any] = connect(DatabaseAddress.parse(uri, name="bench"))
    connection.cursor_factory = TimedCursor
    return connection
