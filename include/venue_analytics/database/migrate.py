"""Migrate a database: roles, migrations, and the adapter over its source tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import LiteralString

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.pq import TransactionStatus

from venue_analytics.database.connection import JOBS_ROLE, OWNER_ROLE, DatabaseAddress
from venue_analytics.database.contract import VIEWS
from venue_analytics.database.currencies import CODES
from venue_analytics.database.migrations import TableInTheWayError
from venue_analytics.database.statements import statement

ADAPTERS = ("platform", "simple", "csv")
PACKAGE = "venue_analytics.database"
SCHEMA_RIGHTS: tuple[tuple[str, LiteralString], ...] = (
    (OWNER_ROLE, "CREATE"),
    (OWNER_ROLE, "USAGE"),
    ("analytics_jobs", "USAGE"),
    ("analytics_reader", "USAGE"),
    ("analytics_lister", "USAGE"),
)


class MigrationError(Exception):
    """The database cannot be migrated; the message says why."""


@dataclass(frozen=True)
class Migrated:
    """The result of a migration.

    Attributes:
        from_revision: the revision before, None in an empty database.
        to_revision: the revision after.
        adapter: the name of the adapter in force.
        currency: the currency of amounts without one (ISO 4217).
    """

    from_revision: str | None
    to_revision: str
    adapter: str
    currency: str


def migrate(
    address: DatabaseAddress, *, adapter: str | None = None, currency: str | None = None
) -> Migrated:
    """Create or upgrade schemas, tables and views, and define the source contract by an adapter.

    Everything runs in one transaction, so an error changes nothing, except roles that are missing
    and were created. analytics_owner owns every object. The login creates the adapter's views and
    grants, because they need its rights on the source tables.

    Args:
        address: the database, with a login that may act as analytics_owner and may grant rights on
            the source tables.
        adapter: `platform`, `simple`, `csv`, or the path of an .sql file; by default the adapter
            in force, initially `platform`.
        currency: ISO 4217 code for adapters whose tables have no currency; by default the one in
            force, initially USD.

    Raises:
        MigrationError: a table of that name exists and was not made by these migrations, the
            adapter's tables are missing, or rights are missing.
    """
    if currency is not None and currency not in CODES:
        raise MigrationError(
            f"currency {currency!r}: must be an ISO 4217 code of three capital letters"
        )
    with _open(address) as connection:
        driver = _driver_connection(connection)
        # one migration at a time: a concurrent one waits, then has nothing to do
        driver.execute("SELECT pg_advisory_xact_lock(hashtextextended('venue_analytics', 0))")
        _make_roles(driver)
        _make_schemas(driver)
        before, after = _upgrade(connection, driver)
        _apply_adapter(driver, adapter, currency)
        in_force = driver.execute("SELECT name, currency FROM source.adapter").fetchone()
        connection.commit()
        name, currency = in_force or ("", "")
        return Migrated(before, after, name, currency)


@contextmanager
def _open(address: DatabaseAddress) -> Iterator[sqlalchemy.Connection]:
    # SQLAlchemy is here only for Alembic; psycopg parses the address, as everywhere else.
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(
            address.conninfo, options="-c timezone=UTC", application_name="venue_analytics migrate"
        ),
        poolclass=sqlalchemy.NullPool,
    )
    try:
        with engine.connect() as connection:
            yield connection
    except (sqlalchemy.exc.DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
        if isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None:
            raise cause from None  # unreachable server: reported as in every other command
        raise MigrationError(" ".join(str(cause).split())) from error
    except TableInTheWayError as error:
        raise MigrationError(str(error)) from None
    finally:
        engine.dispose()


def _driver_connection(connection: sqlalchemy.Connection) -> psycopg.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - the engine above opens no other
    return driver


def _make_roles(driver: psycopg.Connection) -> None:
    """Create the missing roles, and let the login act as owner and, if it may, as the jobs."""
    text: LiteralString = files(PACKAGE).joinpath("roles.sql").read_text(encoding="utf-8")
    try:
        with driver.transaction():
            driver.execute(text)
            _let_login_act_as(driver, OWNER_ROLE)
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"roles are missing and the login may not create them ({str(error).strip()}): have an "
            "administrator run include/venue_analytics/database/roles.sql once, and GRANT "
            f"{OWNER_ROLE} to the login"
        ) from None
    # The login may run the jobs too, if it has the right to grant itself that role.
    with suppress(psycopg.errors.InsufficientPrivilege), driver.transaction():
        _let_login_act_as(driver, JOBS_ROLE)


def _let_login_act_as(driver: psycopg.Connection, role: str) -> None:
    # From PostgreSQL 16 on, the creator of a role is a member that may not SET ROLE to it.
    right = "SET" if driver.info.server_version >= 160000 else "MEMBER"
    may = driver.execute("SELECT pg_has_role(current_user, %s, %s)", [role, right]).fetchone()
    if may is not None and not may[0]:
        driver.execute(sql.SQL("GRANT {} TO current_user").format(sql.Identifier(role)))


def _make_schemas(driver: psycopg.Connection) -> None:
    """Create schemas jobs and source; raise if one belongs to another owner."""
    for name in ("jobs", "source"):
        found = driver.execute(
            "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = %s", [name]
        ).fetchone()
        if found is None:
            statement = sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}")
            driver.execute(statement.format(sql.Identifier(name), sql.Identifier(OWNER_ROLE)))
        elif found[0] != OWNER_ROLE:
            raise MigrationError(
                f"schema {name} already exists and belongs to {found[0]}, not to {OWNER_ROLE}; "
                "nothing was changed. Rename it, or point the connection at another database."
            )
    for role, right in SCHEMA_RIGHTS:
        has = driver.execute(
            "SELECT has_schema_privilege(%s, 'public', %s)", [role, right]
        ).fetchone()
        if has is not None and not has[0]:
            driver.execute(
                sql.SQL("GRANT {} ON SCHEMA public TO {}").format(
                    sql.SQL(right), sql.Identifier(role)
                )
            )


def _upgrade(
    connection: sqlalchemy.Connection, driver: psycopg.Connection
) -> tuple[str | None, str]:
    """Run the missing migrations as the owner, in the open transaction."""
    config = Config()
    config.set_main_option("script_location", "venue_analytics.database:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    context = MigrationContext.configure(connection, opts={"version_table_schema": "jobs"})
    head = ScriptDirectory.from_config(config).get_current_head()
    driver.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(OWNER_ROLE)))
    before = context.get_current_revision()
    command.upgrade(config, "head")
    driver.execute("RESET ROLE")
    return before, str(head)


def _apply_adapter(driver: psycopg.Connection, adapter: str | None, currency: str | None) -> None:
    """Replace the views of the contract with the adapter's."""
    if driver.info.transaction_status is not TransactionStatus.INTRANS:
        raise MigrationError("a migration ended the transaction that it runs in")
    in_force = driver.execute("SELECT name, currency FROM source.adapter").fetchone()
    name = (in_force[0] if in_force else "platform") if adapter is None else adapter
    if name.endswith(".sql"):
        name = str(Path(name).resolve())  # a later `migrate` may run in another folder
    text = _adapter_text(name)
    views = [sql.Identifier("source", view.name) for view in VIEWS]
    driver.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.SQL(", ").join(views)))
    try:
        driver.execute(text)
        if driver.info.transaction_status is not TransactionStatus.INTRANS:
            raise MigrationError(
                f"adapter {name} ended the transaction, so its changes up to there are committed: "
                "remove BEGIN, COMMIT and ROLLBACK from it, and migrate again"
            )
        for view in views:
            driver.execute(
                sql.SQL("ALTER VIEW {} OWNER TO {}").format(view, sql.Identifier(OWNER_ROLE))
            )
            driver.execute(sql.SQL("GRANT SELECT ON {} TO analytics_jobs").format(view))
        driver.execute("GRANT SELECT ON source.venues TO analytics_lister")
    except psycopg.ProgrammingError as error:
        # a missing table, column or right, or a type that cannot be cast
        raise MigrationError(
            f"adapter {name} does not fit this database: {error.diag.message_primary}. "
            "Nothing was changed. Choose another adapter, or write one "
            "(docs/own-database.md)."
        ) from None
    driver.execute(
        statement(PACKAGE, "set_adapter"),
        {"name": name, "currency": currency},
    )


def _adapter_text(name: str) -> LiteralString:
    """Return the SQL of a built-in adapter, or of a file."""
    if name in ADAPTERS:
        return files(PACKAGE).joinpath("adapters", f"{name}.sql").read_text(encoding="utf-8")
    path = Path(name)
    if path.suffix == ".sql" and path.is_file():
        return path.read_text(encoding="utf-8")
    raise MigrationError(
        f"adapter {name!r}: must be {', '.join(ADAPTERS)}, or the path of an .sql file"
    )
