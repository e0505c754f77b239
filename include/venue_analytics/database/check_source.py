"""Check the source contract against the data behind it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID
from zoneinfo import available_timezones

import psycopg
from psycopg.rows import dict_row

from venue_analytics.database.contract import VIEWS, ContractView
from venue_analytics.database.statements import statement

PACKAGE = "venue_analytics.database"

#: Counts of check_*.sql that break the contract; the others are warnings.
FAULTS = (
    "duplicates",
    "of unknown status",
    "whose is_sale contradicts their status",
    "without loaded_through",
)
#: Counts that are neither faults nor warnings.
PLAIN = ("rows", "by guests", "deleted", "erased", "with updated_at")


@dataclass
class SourceReport:
    """The findings of a check.

    Attributes:
        adapter: the adapter in force, None if there is none.
        rows: number of rows of each readable view, over all tenants.
        time_zones: number of venues in each time zone.
        faults: what breaks the contract.
        warnings: common defects of real data, which the jobs leave out or tolerate.
    """

    adapter: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    time_zones: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_source(connection: psycopg.Connection) -> SourceReport:
    """Check each view of the contract: its existence, types, unique keys and references.

    Args:
        connection: with the jobs' role, so that the check sees exactly what the jobs see.
    """
    report = SourceReport()
    if not _find_adapter(connection, report):
        return report
    sound = [view for view in VIEWS if _check_columns(connection, report, view)]
    if any(view.name == "venues" for view in sound):
        tenants = _check_venues(connection, report)
        for view in sound:
            if view.name != "venues":
                _check_rows(connection, report, view, tenants)
        if tenants and "orders" in report.rows:
            _check_tenants_of_orders(connection, report, tenants)
    return report


def _find_adapter(connection: psycopg.Connection, report: SourceReport) -> bool:
    try:
        row = connection.execute(statement(PACKAGE, "adapter")).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        row = None
    if row is None:
        report.faults.append(
            "schema source is missing: run `python -m venue_analytics migrate --adapter …`"
        )
        return False
    (report.adapter,) = row
    return True


def _check_columns(
    connection: psycopg.Connection, report: SourceReport, view: ContractView
) -> bool:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(statement(PACKAGE, "view_columns"), {"view": view.name}).fetchall()
    if not rows:
        report.faults.append(f"source.{view.name} is missing")
        return False
    if not rows[0]["readable"]:
        report.faults.append(
            f"source.{view.name} is not readable: GRANT SELECT ON source.{view.name} "
            "TO analytics_jobs"
        )
        return False
    found = {row["column_name"]: row["type_name"] for row in rows}
    before = len(report.faults)
    for column, wanted in view.columns.items():
        if column not in found:
            report.faults.append(f"source.{view.name}.{column} is missing: must be {wanted}")
        elif found[column].split("(")[0] != wanted:
            report.faults.append(
                f"source.{view.name}.{column} is of type {found[column]}: must be {wanted}"
            )
    return len(report.faults) == before


def _check_venues(connection: psycopg.Connection, report: SourceReport) -> list[UUID]:
    """Check the venues of all tenants; return the tenants."""
    with connection.cursor(row_factory=dict_row) as cursor:
        try:
            venues = cursor.execute(statement(PACKAGE, "check_venues")).fetchall()
        except psycopg.Error as error:
            report.faults.append(f"source.venues cannot be read: {error.diag.message_primary}")
            return []
    report.rows["venues"] = len(venues)
    known = available_timezones()
    for venue_id, count in Counter(row["venue_id"] for row in venues).items():
        if count > 1:
            report.faults.append(f"source.venues has venue_id {venue_id} {count} times")
    for row in venues:
        shown = f"venue {row['name'] or '(no name)'} ({row['venue_id']})"
        if row["tenant_id"] is None:
            report.warnings.append(f"{shown} has no tenant: left out of every job")
        zone = row["timezone"]
        if zone is not None and zone not in known:
            report.faults.append(f"{shown} has time zone {zone!r}: must be an IANA name, or null")
        else:
            report.time_zones[zone or "UTC (none given)"] += 1
    if not venues:
        report.warnings.append("source.venues has no rows: there is nothing to do")
    return sorted({row["tenant_id"] for row in venues if row["tenant_id"] is not None})


def _check_tenants_of_orders(
    connection: psycopg.Connection, report: SourceReport, tenants: list[UUID]
) -> None:
    with connection.transaction():
        connection.execute(
            "SELECT set_config('app.current_tenant_id', %s, TRUE)", [str(tenants[0])]
        )
        (orders,) = connection.execute(
            statement(PACKAGE, "orders_of_unknown_tenants"), {"tenants": tenants}
        ).fetchone() or (0,)
    if orders:
        report.warnings.append(f"source.orders has {orders:,} rows of tenants without a venue")


def _check_rows(
    connection: psycopg.Connection,
    report: SourceReport,
    view: ContractView,
    tenants: list[UUID],
) -> None:
    """Count the defects of a view, one tenant at a time, as the jobs read it."""
    counts: Counter[str] = Counter()
    seen_by_all = 0
    for tenant_id in tenants:
        try:
            with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
                cursor.execute(
                    "SELECT set_config('app.current_tenant_id', %s, TRUE)", [str(tenant_id)]
                )
                row = cursor.execute(
                    statement(PACKAGE, f"check_{view.name}"), {"tenant_id": tenant_id}
                ).fetchone()
        except psycopg.Error as error:
            report.faults.append(
                f"source.{view.name} cannot be read for tenant {tenant_id}: "
                f"{error.diag.message_primary or error}"
            )
            return
        counts.update(row or {})
        seen_by_all = max(seen_by_all, (row or {}).get("rows", 0))
    # customers without a tenant are counted again for every tenant
    report.rows[view.name] = counts["rows"] if view.name != "customers" else seen_by_all
    for kind, count in counts.items():
        if not count or kind in PLAIN:
            continue
        if kind in FAULTS:
            key = ", ".join(view.key)
            what = f"rows whose {key} is not unique" if kind == "duplicates" else f"rows {kind}"
            report.faults.append(f"source.{view.name} has {count:,} {what}")
        else:
            report.warnings.append(f"source.{view.name} has {count:,} rows {kind}")
    if view.name == "freshness" and counts["rows"] < len(tenants):
        report.faults.append(
            f"source.freshness has rows for {counts['rows']} of {len(tenants)} tenants: "
            "venues of the other tenants cannot be processed"
        )
