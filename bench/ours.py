"""RFM scoring of this project: bare, and guarded as the command line runs it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import psycopg
from bench.measuring import Measured, TimedCursor

from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.harness import GroupRun, RunParameters, groups, history
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.batches import pack
from venue_analytics.harness.find_units import find_units
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import RunKey
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.plan import plan_run
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.redis_server import RedisAddress
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.tenant import set_tenant, snapshot_transaction
from venue_analytics.jobs.rfm_scoring import JOB as RFM_SCORING
from venue_analytics.jobs.rfm_scoring.score import score_venues
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

SETTINGS = RfmScoringSettings()


def bare(uri: str, as_of: datetime, measured_in: str) -> Measured:
    """Run only the job's own step, group by group: no lease, no token, no fence, no history.

    Args:
        uri: the address of the database.
        as_of: the as_of of the night.
        measured_in: the database whose history has the last durations of the venues, so that the
            groups are the same as in the guarded way.
    """
    with _connect(measured_in) as other, _connect(uri) as connection:
        venue_ids = [venue.id for venue in find_units(other, RFM_SCORING).units]
        took = history.last_durations(other, RFM_SCORING.name, venue_ids)
        began = time.monotonic()
        rows = 0
        venues = [
            replace(venue, expected_seconds=took.get(venue.id))
            for venue in find_units(connection, RFM_SCORING).units
        ]
        for batch in pack(venues, max_tasks=None):
            for group in groups.cut(batch.units, lambda v: v, lambda v: groups.likeness(v, {})):
                with snapshot_transaction(connection):
                    set_tenant(connection, group[0].tenant_id)
                    results = score_venues(
                        GroupRun(
                            connection,
                            group[0].tenant_id,
                            tuple(group),
                            SETTINGS,
                            RunParameters(),
                            as_of,
                            force=False,
                            set_aside=lambda *_: None,
                        )
                    )
                rows += sum(result.rows_written for result in results.values())
        return Measured(time.monotonic() - began, rows=rows, statements=TimedCursor.seconds)


def guarded(uri: str, redis_uri: str, as_of: datetime) -> Measured:
    """Run the job as a DAG run with one worker does: plan, the batches in turn, finish.

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
        process_batch(
            lambda: _connect(uri), leases, RFM_SCORING, BatchTry.of(RFM_SCORING, run, batch)
        )
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
