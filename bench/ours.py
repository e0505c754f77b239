"""RFM scoring as this project does it: bare, and guarded as the command line runs it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import psycopg
from bench.measuring import Measured, TimedCursor

from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.harness import GroupRun, groups, history
from venue_analytics.harness.batches import pack
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import RunKey
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.plan import plan_run
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.redis_server import RedisAddress
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.tenant import one_moment, set_tenant
from venue_analytics.harness.venues import find_venues
from venue_analytics.jobs import RFM_SCORING
from venue_analytics.jobs.rfm_scoring.score import score_venues
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

SETTINGS = RfmScoringSettings()


def bare(uri: str, as_of: datetime, measured_in: str) -> Measured:
    """Do the job's own step, group by group: no lease, no token, no fence, no history.

    Args:
        uri: of the database.
        as_of: of the night.
        measured_in: the database whose history says what venues took last, so that the groups are
            those of the guarded way.
    """
    with _connect(measured_in) as other, _connect(uri) as connection:
        venue_ids = [venue.venue_id for venue in find_venues(other, RFM_SCORING).venues]
        took = history.last_durations(other, RFM_SCORING.name, venue_ids)
        began = time.monotonic()
        rows = 0
        venues = [
            replace(venue, expected_seconds=took.get(venue.venue_id))
            for venue in find_venues(connection, RFM_SCORING).venues
        ]
        for batch in pack(venues, max_tasks=None):
            for group in groups.cut(batch.venues, lambda v: v, lambda v: groups.likeness(v, {})):
                with one_moment(connection):
                    set_tenant(connection, group[0].tenant_id)
                    results = score_venues(
                        GroupRun(
                            connection,
                            group[0].tenant_id,
                            tuple(group),
                            SETTINGS,
                            as_of,
                            force=False,
                            set_aside=lambda *_: None,
                        )
                    )
                rows += sum(result.rows_written for result in results.values())
        return Measured(time.monotonic() - began, rows=rows, statements=TimedCursor.seconds)


def guarded(uri: str, redis_uri: str, as_of: datetime) -> Measured:
    """Run the job as a DAG run does, by one worker: plan, the batches one after the other, finish.

    Raises:
        RuntimeError: a venue did not end well.
    """
    leases = Leases(RedisAddress.parse(redis_uri, name="bench").client(), RFM_SCORING.name)
    key = RunKey(uuid4(), RFM_SCORING.name, f"as of {as_of}")
    began = time.monotonic()
    with _connect(uri) as connection:
        run = plan_run(connection, leases, RFM_SCORING, key, SETTINGS, RunRequest(), as_of=as_of)
        batches = history.load_batches(connection, run)
    for batch in batches:
        process_batch(lambda: _connect(uri), leases, RFM_SCORING, run, batch, SETTINGS)
    with _connect(uri) as connection:
        unfinished = finish_run(connection, leases, RFM_SCORING, run)
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
