"""Plan: decide what a run has to do, and store it before any unit is touched."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg

from venue_analytics.harness import history
from venue_analytics.harness.batches import pack
from venue_analytics.harness.errors import PermanentError, TransientError
from venue_analytics.harness.find_units import choose_units, find_units, unknown_in_settings
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.housekeeping import close_left_running, end_runs_left_open
from venue_analytics.harness.job import Job
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.moments import format_moment
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.settings import JobSettings

log = logging.getLogger(__name__)

#: The scheduler's clock, which dates a manual run, may be this much ahead of the database's.
CLOCK_TOLERANCE = timedelta(minutes=1)


#: The command line's runs begin with this; while one lives, it holds a lease under its own id.
COMMAND_LINE = "cli__"


def plan_run(
    connection: psycopg.Connection,
    leases: Leases,
    job: Job[Any],
    key: RunKey,
    settings: JobSettings,
    request: RunRequest,
    *,
    as_of: datetime,
    plan_try: int = 1,
    alone: bool = False,
    is_over: Callable[[str], bool] | None = None,
) -> PlannedRun:
    """Decide what a run does, and store it; first end what earlier runs have left open.

    A dry run ends nothing: what is to be reported of other runs is for a real run.

    Args:
        connection: of the jobs' role, not in a transaction.
        leases: of the job.
        job: the job.
        key: names the run.
        settings: as read now; all tasks of the run use these.
        request: what was asked of this run.
        as_of: what its results are as of.
        plan_try: which try of plan this is; an earlier one never replaces a later one's plan.
        alone: whether one process does all of it, one batch after the other.
        is_over: whether a run of this deployment, by its id, has ended.

    Returns:
        The run as its latest plan has it.

    Raises:
        PermanentError: as_of lies in the future, a unit was asked for that is not there, or the
            source lists no unit though results of some stand.
        TransientError: as_of lies less than a minute ahead: clocks differ; or Redis does
            not answer.
    """
    (now,) = connection.execute("SELECT now()").fetchone() or (as_of,)
    if now < as_of <= now + CLOCK_TOLERANCE:
        raise TransientError(
            f"as_of = {format_moment(as_of)} lies just ahead of the database's clock "
            f"({format_moment(now)})"
        )
    if as_of > now:
        raise PermanentError(
            f"as_of = {format_moment(as_of)} lies in the future; allowed: up to now "
            f"({format_moment(now)})"
        )
    leases.ping()
    left_open = []
    if not request.dry_run:
        close_left_running(connection, leases, job.name)
        left_open = [
            run
            for run in history.unfinished_runs(connection, key)
            if _is_over(leases, run, key, is_over)
        ]
    found = find_units(connection, job)
    units = choose_units(connection, job, found, settings, request, as_of)
    faults = found.faults + unknown_in_settings(found, settings)
    seconds = history.last_durations(connection, job.name, [v.id for v in units])
    measured = [dataclasses.replace(unit, expected_seconds=seconds.get(unit.id)) for unit in units]
    with connection.transaction():
        left_behind = end_runs_left_open(connection, job, left_open)
        history.store_plan(
            connection,
            key,
            plan_try=plan_try,
            as_of=as_of,
            request=request,
            settings=settings.model_dump(mode="json"),
            source_faults=faults,
            left_behind=left_behind,
            batches=pack(
                measured,
                max_tasks=None if alone else settings.max_tasks,
                overrides=settings.overrides,
            ),
        )
    run = history.load_run(connection, key)
    if run is None:
        raise LookupError(f"run {key.run_id} of {key.job}: its plan was not stored")
    for line in left_behind + faults:
        log.warning(line)
    count = f"{len(units):,} {job.unit.plural}"
    if len(units) < len(found.units):
        count += f" of {len(found.units):,}"
    log.info("%s as of %s: %s", job.name, format_moment(as_of), count)
    return run


def _is_over(
    leases: Leases, run: PlannedRun, key: RunKey, is_over: Callable[[str], bool] | None
) -> bool:
    """Return whether nobody will finish a run any more. Another deployment ends its own."""
    if run.deployment == key.deployment:
        return is_over is not None and is_over(run.run_id)
    return run.run_id.startswith(COMMAND_LINE) and leases.holder(run.deployment) is None
