"""Fill the audited ticketing platform's own tables with synthetic sales.

The rows are computed in SQL from hashes of the seed and a row's number: the same seed, scale and
`until` produce the same rows, on every version of PostgreSQL.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from datetime import datetime, time, timedelta
from importlib.resources import files
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import class_row, scalar_row

#: The tenants of the demo, by name.
TENANTS = {
    "Northlight Live": UUID("6f1c2a40-0b5e-4d3a-9c77-1d2f5a8e0001"),
    "Copperline Stages": UUID("b84d9e12-73fa-4c06-8a15-92c4e6d70002"),
}

#: Customers at scale 1; they place four orders each on average.
CUSTOMERS = 15_000


@dataclass(frozen=True)
class PlatformSummary:
    """The number of rows that the demo's tenants can read in each of the platform's tables.

    The venue without tenant is not counted, because no tenant can read it.
    """

    tenants: int
    users: int
    venues: int
    events: int
    event_schedules: int
    event_capacity: int
    orders: int
    order_items: int
    order_refunds: int
    ticket_scans: int
    gdpr_deletion_requests: int


TABLES = tuple(field.name for field in fields(PlatformSummary))


class PlatformConflictError(Exception):
    """The database has tables with the platform's names that are not the demo's."""


def load_platform(
    conninfo: str, *, until: datetime, scale: float = 1.0, seed: int = 1
) -> PlatformSummary:
    """Create and fill the platform's tables; do nothing if they are loaded already.

    The load is one transaction. Then the tables are vacuumed and analysed, so that the first
    queries can use index-only scans.

    Args:
        conninfo: libpq address of a database in whose schema public the user may create tables.
        until: a UTC midnight; every row was created before it. Events on sale take place up to 120
            days later.
        scale: 1 means 15,000 customers and about 60,000 orders; from 0.01 to 1000.
        seed: another seed produces other customers, orders and events at the same venues.

    Returns:
        The number of rows in each table.

    Raises:
        ValueError: `until` is not a UTC midnight, or `scale` is out of range.
        PlatformConflictError: tables with these names exist and are not the demo's.
    """
    if until.utcoffset() != timedelta(0) or until.time() != time():
        raise ValueError(f"until is {until.isoformat()}; it must be a midnight in UTC")
    if not 0.01 <= scale <= 1000:
        raise ValueError(f"scale is {scale}; it must be from 0.01 to 1000")
    northlight, copperline = TENANTS.values()
    parameters = {
        "until": until,
        "seed": seed,
        "customers": round(CUSTOMERS * scale),
        "northlight": northlight,
        "copperline": copperline,
    }
    with psycopg.connect(conninfo, cursor_factory=psycopg.ClientCursor, autocommit=True) as session:
        with session.transaction():
            _prepare(session)
            if _is_loaded(session):
                return _count_by_tenant(session)
            for part in ("schema", "programme", "sales"):
                session.execute(_sql(part), parameters)
            summary = _count(session)
            session.execute(_sql("access"))
        session.execute(f"VACUUM (ANALYZE) {', '.join(TABLES)}")
    return summary


def _prepare(session: psycopg.Connection[Any]) -> None:
    """Lock out other loaders; make local times and speed independent of the server's settings."""
    session.execute("SET LOCAL TimeZone = 'UTC'")
    session.execute("SET LOCAL search_path = public")
    session.execute("SET LOCAL work_mem = '128MB'")
    session.execute("SET LOCAL maintenance_work_mem = '256MB'")
    session.execute("SET LOCAL jit = off")
    session.execute("SELECT pg_advisory_xact_lock(hashtext('venue_analytics.demo.platform'))")


def _is_loaded(session: psycopg.Connection[Any]) -> bool:
    """Return whether the demo is loaded; raise if the tables are not the demo's."""
    with session.cursor(row_factory=scalar_row) as cursor:
        present = cursor.execute(
            "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL",
            [list(TABLES)],
        ).fetchall()
    if not present:
        return False
    if len(present) < len(TABLES) or not all(
        _has_tenant(session, tenant) for tenant in TENANTS.values()
    ):
        raise PlatformConflictError(
            f"schema public already has {', '.join(present)}, which are not the demo's: "
            "load the demo into a database without these tables"
        )
    return True


def _has_tenant(session: psycopg.Connection[Any], tenant: UUID) -> bool:
    _set_tenant(session, tenant)
    return bool(session.execute("SELECT FROM tenants WHERE id = %s", [tenant]).rowcount)


def _count(session: psycopg.Connection[Any]) -> PlatformSummary:
    with session.cursor(row_factory=class_row(PlatformSummary)) as cursor:
        [summary] = cursor.execute(_sql("counts"))
    return summary


def _count_by_tenant(session: psycopg.Connection[Any]) -> PlatformSummary:
    """Count the rows tenant by tenant: row-level security hides them from the owner too."""
    total: Counter[str] = Counter()
    for tenant in TENANTS.values():
        _set_tenant(session, tenant)
        total.update(asdict(_count(session)))
    return PlatformSummary(**total)


def _set_tenant(session: psycopg.Connection[Any], tenant: UUID) -> None:
    session.execute("SELECT set_config('app.current_tenant_id', %s, true)", [str(tenant)])


def _sql(part: str) -> LiteralString:
    """Return the text of `platform_<part>.sql`, typed as a literal, as psycopg requires."""
    return files(__package__).joinpath(f"platform_{part}.sql").read_text(encoding="utf-8")
