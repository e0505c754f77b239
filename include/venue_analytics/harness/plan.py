"""Plan: what a run is to do, settled once and stored before any venue is touched."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from venue_analytics.database.statements import statement
from venue_analytics.harness import history
from venue_analytics.harness.batches import pack
from venue_analytics.harness.errors import PermanentError
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.job import Job, Venue
from venue_analytics.harness.request import RunRequest, moment
from venue_analytics.harness.settings import JobSettings
from venue_analytics.harness.tenant import tenant_transaction

log = logging.getLogger(__name__)


def plan_run(
    connection: psycopg.Connection,
    job: Job[Any],
    key: RunKey,
    settings: JobSettings,
    request: RunRequest,
    *,
    as_of: datetime,
) -> PlannedRun:
    """Settle what a run does, and store it.

    Args:
        connection: of the jobs' role, not in a transaction.
        job: the job.
        key: names the run.
        settings: as read now; all tasks of the run use these.
        request: what was asked of this run.
        as_of: what its results are as of.

    Raises:
        PermanentError: as_of lies in the future, or a venue was asked for that is not there.
    """
    (now,) = connection.execute("SELECT now()").fetchone() or (as_of,)
    if as_of > now:
        raise PermanentError(
            f"as_of = {moment(as_of)} lies in the future; allowed: up to now ({moment(now)})"
        )
    venues, faults = _venues_to_do(connection, job)
    venues = _chosen(venues, settings, request)
    run = history.store_plan(
        connection,
        key,
        as_of=as_of,
        force=request.force,
        settings=settings.model_dump(mode="json"),
        source_faults=faults,
        batches=pack(venues, max_tasks=settings.max_tasks),
    )
    for fault in faults:
        log.warning(fault)
    log.info("%s as of %s: %d venues", job.name, moment(as_of), len(venues))
    return run


def _venues_to_do(connection: psycopg.Connection, job: Job[Any]) -> tuple[list[Venue], list[str]]:
    """Give the venues of every tenant, those gone too, and what is amiss in words."""
    faults = []
    with connection.transaction():
        rows = connection.execute(statement(__package__, "list_venues")).fetchall()
        worked_for = connection.execute(
            statement(__package__, "tenants_of_job"), {"job": job.name}
        ).fetchall()
    venues: dict[UUID, Venue] = {}
    for venue_id, tenant_id, name, timezone, currency, is_open in rows:
        shown = name or str(venue_id)
        if tenant_id is None:
            faults.append(f"venue {shown} ({venue_id}) has no tenant: left out")
        else:
            venues[venue_id] = Venue(
                venue_id, tenant_id, shown, timezone, currency, gone=not is_open
            )
    tenants = {venue.tenant_id for venue in venues.values()} | {tenant for (tenant,) in worked_for}
    held: set[UUID] = set()
    for tenant_id in sorted(tenants):
        with tenant_transaction(connection, tenant_id):
            for venue_id in job.venues_held(connection, tenant_id):
                held.add(venue_id)
                known = venues.get(venue_id)
                if known is None:
                    venues[venue_id] = Venue(venue_id, tenant_id, str(venue_id), gone=True)
                elif known.tenant_id != tenant_id:
                    venues[venue_id] = _moved(known, tenant_id)
            (count,) = connection.execute(
                statement(__package__, "orders_at_unknown_venues"), {"tenant_id": tenant_id}
            ).fetchone() or (0,)
        if count:
            faults.append(f"{count} orders of tenant {tenant_id} are at unknown venues: left out")
    nothing_to_remove = {v.venue_id for v in venues.values() if v.gone} - held
    return [v for v in venues.values() if v.venue_id not in nothing_to_remove], faults


def _moved(venue: Venue, former_tenant_id: UUID) -> Venue:
    return Venue(
        venue.venue_id,
        venue.tenant_id,
        venue.name,
        venue.timezone,
        venue.currency,
        venue.gone,
        former_tenant_id,
    )


def _chosen(venues: Iterable[Venue], settings: JobSettings, request: RunRequest) -> list[Venue]:
    """Keep the venues that the settings and the request name."""
    by_id = {venue.venue_id: venue for venue in venues}
    if request.venues:
        unknown = [str(venue) for venue in request.venues if venue not in by_id]
        if unknown:
            raise PermanentError(
                f"venues = {', '.join(unknown)}: not an open venue with a tenant in source.venues"
            )
    included = set(request.venues or settings.include_venues or by_id)
    excluded = set(settings.exclude_venues) - set(request.venues or ())
    return [v for v in by_id.values() if v.venue_id in included and v.venue_id not in excluded]
