"""Transactions that see the rows of one tenant, and of one snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
from psycopg import IsolationLevel


@contextmanager
def tenant_transaction(connection: psycopg.Connection, tenant_id: UUID | None) -> Iterator[None]:
    """Open a transaction that sees one tenant's rows; commit at its end.

    Raises:
        ValueError: no tenant. A policy that then showed no rows would have every customer
            deleted.
    """
    with connection.transaction():
        set_tenant(connection, tenant_id)
        yield


@contextmanager
def snapshot_transaction(connection: psycopg.Connection) -> Iterator[None]:
    """Open a transaction whose statements all see what the first one sees; commit at its end."""
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with connection.transaction():
            # BEGIN was sent with the level: `finally` resets it for the next transaction
            yield
    finally:
        if not connection.closed:
            connection.isolation_level = None


def set_tenant(connection: psycopg.Connection, tenant_id: UUID | None) -> None:
    """Set the tenant whose rows the open transaction sees.

    Raises:
        ValueError: no tenant.
    """
    if tenant_id is None:
        raise ValueError("tenant_id = None: a transaction needs exactly one tenant")
    connection.execute("SELECT set_config('app.current_tenant_id', %s, TRUE)", [str(tenant_id)])
