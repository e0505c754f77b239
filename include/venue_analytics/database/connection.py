"""From an Airflow connection to a psycopg connection that runs with one role's rights."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

JOBS_ROLE = "analytics_jobs"
OWNER_ROLE = "analytics_owner"

#: Extras of an Airflow connection that libpq understands, but for those that we set ourselves;
#: the others are Airflow's own.
LIBPQ_EXTRAS = frozenset(option.keyword.decode() for option in Conninfo.get_defaults()) - {
    "options",
    "application_name",
    "user",
    "password",
    "dbname",
    "port",
}


#: No statement is executed as often as that.
NEVER_BY_ITSELF = 2**31

FORMS = (
    "postgresql://user:password@host:port/database, or Airflow's JSON with conn_type, host, port, "
    "login, password, schema and extra"
)


class DatabaseConnectionError(Exception):
    """A connection is missing, cannot be read or may not be used; the message says what to do."""


@dataclass(frozen=True)
class DatabaseAddress:
    """Where the analytics database is; never shows its password."""

    conninfo: str = field(repr=False)

    @classmethod
    def from_parts(
        cls,
        *,
        host: str | None,
        port: int | None,
        user: str | None,
        password: str | None,
        database: str | None,
        extra: dict[str, Any],
    ) -> DatabaseAddress:
        """Build an address from the fields of an Airflow connection."""
        parts = {key: str(value) for key, value in extra.items() if key in LIBPQ_EXTRAS}
        named = {"host": host, "port": port, "user": user, "password": password, "dbname": database}
        parts |= {key: str(value) for key, value in named.items() if value not in (None, "")}
        return cls(make_conninfo("", **parts))

    @classmethod
    def parse(cls, value: str, *, name: str) -> DatabaseAddress:
        """Read the value of an `AIRFLOW_CONN_…` variable: a URI, or Airflow's JSON.

        Args:
            value: the variable's value.
            name: the variable's name, for messages.

        Raises:
            DatabaseConnectionError: the value is neither.
        """
        try:
            if value.lstrip().startswith("{"):
                return cls._from_json(value)
            uri = urlsplit(value)
            port = uri.port
        except json.JSONDecodeError:
            raise DatabaseConnectionError(f"{name} is not valid JSON: must be {FORMS}") from None
        except ValueError:
            # Its own text may hold the password.
            raise DatabaseConnectionError(f"{name} cannot be read: must be {FORMS}") from None
        if uri.scheme not in ("postgres", "postgresql"):
            raise DatabaseConnectionError(
                f"{name} must be {FORMS}; it begins with {uri.scheme or 'no scheme'}"
            )
        return cls.from_parts(
            host=unquote(uri.hostname) if uri.hostname else None,
            port=port,
            user=unquote(uri.username) if uri.username else None,
            password=unquote(uri.password) if uri.password else None,
            database=unquote(uri.path.lstrip("/")) or None,
            extra=dict(parse_qsl(uri.query)),
        )

    @classmethod
    def _from_json(cls, value: str) -> DatabaseAddress:
        fields = json.loads(value)
        extra = fields.get("extra") or {}
        extra = json.loads(extra) if isinstance(extra, str) else extra
        if not isinstance(extra, dict):
            raise ValueError("extra is no object")
        return cls.from_parts(
            host=fields.get("host"),
            port=fields.get("port"),
            user=fields.get("login"),
            password=fields.get("password"),
            database=fields.get("schema"),
            extra=extra,
        )

    @classmethod
    def from_environment(cls, *names: str) -> DatabaseAddress:
        """Take the first of these environment variables that is set.

        Raises:
            DatabaseConnectionError: none is set.
        """
        for name in names:
            if value := os.environ.get(name):
                return cls.parse(value, name=name)
        raise DatabaseConnectionError(
            f"no database given: set {names[-1]}, "
            "for example postgresql://user:password@host:5432/database"
        )


def connect(
    address: DatabaseAddress,
    *,
    role: str | None = JOBS_ROLE,
    application_name: str = "venue_analytics",
    statement_timeout_seconds: int = 0,
    lease_seconds: float = 30,
) -> psycopg.Connection:
    """Open a connection that has the rights of `role` only, whoever logs in.

    It is in autocommit mode: transactions are the blocks that say so. The session's time zone is
    UTC. Statements are not prepared unless they say so: a generic plan of the scoring queries was
    measured at up to 24 times the cost of one made for the venue.

    Args:
        address: where the database is.
        role: the role whose rights hold; None keeps the login's own.
        application_name: shown in pg_stat_activity.
        statement_timeout_seconds: the server cancels a longer statement; 0 means never.
        lease_seconds: how long a lease lasts that nobody renews.

    Raises:
        DatabaseConnectionError: the login may not act as `role`, or the role does not exist.
        psycopg.OperationalError: the server cannot be reached.
    """
    lease = round(lease_seconds * 1000)
    options = (
        f"-c timezone=UTC -c statement_timeout={statement_timeout_seconds}s "
        f"-c lock_timeout={2 * lease} -c idle_in_transaction_session_timeout={lease} "
        "-c client_connection_check_interval=1000"
    )
    if role is not None:
        options += f" -c role={role}"
    try:
        return psycopg.connect(
            address.conninfo,
            options=options,
            application_name=application_name,
            autocommit=True,
            prepare_threshold=NEVER_BY_ITSELF,
            connect_timeout=10,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
    except psycopg.OperationalError as error:
        if role is not None and f'"{role}"' in str(error) and "role" in str(error):
            raise DatabaseConnectionError(
                f"the database login may not act as {role}: run `python -m venue_analytics "
                f"migrate` first, then GRANT {role} TO that login ({str(error).strip()})"
            ) from None
        raise
