"""Alembic migrations; each runs the .sql file of the same name."""

from __future__ import annotations

from pathlib import Path

from alembic import op


class TableInTheWayError(Exception):
    """A table that a migration creates already exists, and no migration made it."""


def run_sql(migration: str, *, creates: tuple[str, ...]) -> None:
    """Run the .sql file next to a migration.

    Args:
        migration: the migration's `__file__`.
        creates: the names that it creates in schema public.

    Raises:
        TableInTheWayError: one of the names already exists; nothing was changed.
    """
    connection = op.get_bind()
    found = connection.exec_driver_sql(
        "SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'public' AND c.relname = ANY(%(names)s) ORDER BY c.relname",
        {"names": list(creates)},
    )
    if names := [row[0] for row in found]:
        raise TableInTheWayError(
            f"these exist already, and were not made by these migrations: "
            f"{', '.join('public.' + name for name in names)}. Nothing was changed. Rename them "
            "(ALTER TABLE … RENAME TO …), or point the connection at another database."
        )
    connection.execution_options(no_parameters=True).exec_driver_sql(
        Path(migration).with_suffix(".sql").read_text(encoding="utf-8")
    )
