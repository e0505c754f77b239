"""Jobs in which something happens inside a step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from tests.harness.simple_venues import ARENA
from tests.harness.three_steps import THREE_STEPS, Run, count, publish, rank

from venue_analytics.harness import Grouped, GroupRun, Job, UnitResult
from venue_analytics.jobs.rfm_scoring import JOB as RFM_SCORING
from venue_analytics.jobs.rfm_scoring.score import score_venues
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

NAP = """
CREATE TABLE nap (seconds double precision, looks_for_client text);
INSERT INTO nap VALUES (60, '1000');
GRANT SELECT ON nap TO analytics_jobs;
"""


def rank_after_a_nap(run: Run) -> None:
    """Begin to write, then sleep on the server for as long as the table says."""
    run.connection.execute(
        "INSERT INTO ranked SELECT tenant_id, venue_id, customer_id, 0 FROM counted "
        "WHERE venue_id = %s ON CONFLICT DO NOTHING",
        [run.unit.id],
    )
    run.connection.execute(
        "SELECT set_config('client_connection_check_interval', looks_for_client, TRUE) FROM nap"
    )
    run.connection.execute("SELECT pg_sleep(seconds) FROM nap")
    rank(run)


#: The job of three steps with a long query in the second.
NAPPING = replace(THREE_STEPS, steps={"count": count, "rank": rank_after_a_nap, "publish": publish})


def napping(superuser: psycopg.Connection) -> list[int]:
    """Return the server processes that run the long query."""
    rows = superuser.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND state = 'active' AND query LIKE 'SELECT pg_sleep(seconds)%'"
    )
    return [pid for (pid,) in rows]


def once(act: Callable[[Run], object], *, step: str = "count") -> Job[Any]:
    """Return the job of three steps, in which something happens once.

    It happens in the given step of the first venue, before its transaction commits. Each step fails
    if another one works on the same venue.
    """
    happened: list[Run] = []

    def watched(name: str, do: Callable[[Run], Any]) -> Callable[[Run], Any]:
        def do_watched(run: Run) -> Any:
            _be_the_only_writer(run)
            end = do(run)
            if name == step and run.unit.id == ARENA.id and not happened:
                happened.append(run)
                act(run)
            return end

        return do_watched

    return replace(
        THREE_STEPS, steps={name: watched(name, do) for name, do in THREE_STEPS.steps.items()}
    )


def _be_the_only_writer(run: Run) -> None:
    row = run.connection.execute(
        sql.SQL("SELECT pg_try_advisory_xact_lock(hashtextextended({}, 0))").format(
            sql.Literal(str(run.unit.id))
        )
    ).fetchone()
    if row != (True,):
        raise RuntimeError("two writers at once")


#: A venue in this table kills the process that scores it.
DEADLY = """
CREATE TABLE deadly (venue_id uuid);
GRANT SELECT ON deadly TO analytics_jobs;
"""


def score_or_die(run: GroupRun[RfmScoringSettings]) -> dict[UUID, UnitResult]:
    """Score a group, unless one of its venues is deadly."""
    results = score_venues(run)
    deadly = {venue_id for (venue_id,) in run.connection.execute("SELECT venue_id FROM deadly")}
    if deadly & {venue.id for venue in run.units}:
        os.kill(os.getpid(), signal.SIGKILL)
    return results


DYING = replace(RFM_SCORING, steps={"score": Grouped(score_or_die)})
