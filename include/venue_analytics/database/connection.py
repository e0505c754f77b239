"""Open a psycopg connection that has one role's rights from an Airflow connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from venue_analytics.database.server_address import BadConnectionError, ServerAddress

JOBS_ROLE = "analytics_jobs"
OWNER_ROLE = "analytics_owner"

#: Extras of an Airflow connection that are passed to libpq: its own options, except those that are
#: set here. The other extras are Airflow's.
LIBPQ_EXTRAS = frozenset(option.keyword.decode() for option in Conninfo.get_defaults()) - {
    "options",
    "application_name",
    "user",
    "password",
    "dbname",
    "port",
}


#: A threshold that no statement reaches: psycopg prepares only on request.
NEVER_BY_ITSELF = 2**31


class DatabaseAddress(ServerAddress):
    """The address of the analytics database; its repr hides the password."""

    SERVER = "database"
    TYPES = ("postgres", "postgresql")
    EXAMPLE = "postgresql://user:password@host:5432/database"

    @property
    def conninfo(self) -> str:
        """Return the libpq connection string, including the password."""
        parts = {key: value for key, value in self.extra.items() if key in LIBPQ_EXTRAS}
        named = {
            "host": self.host,
            "port": self.port,
            "user": self.login,
            "password": self.password,
            "dbname": self.schema,
        }
        parts |= {key: value for key, value in named.items() if value is not None}
        return make_conninfo("", **parts)


def connect(
    address: DatabaseAddress,
    *,
    by: Callable[[dict[str, Any]], psycopg.Connection] | None = None,
    role: str | None = JOBS_ROLE,
    application_name: str = "venue_analytics",
    statement_timeout_seconds: int = 0,
    lease_seconds: float = 30,
) -> psycopg.Connection:
    """Open a connection that has only the rights of `role`, whatever the login.

    The connection is in autocommit mode; transactions are explicit blocks. The session's time zone
    is UTC. Statements are prepared only on request: a generic plan of the scoring queries was
    measured at up to 24 times the cost of a plan made for the venue.

    Args:
        address: the database; `options` in its extra apply unless they are set here too.
        by: opens the connection instead of psycopg.connect, with the same arguments; for example
            Airflow's hook.
        role: the role whose rights apply; None keeps the login's own.
        application_name: shown in pg_stat_activity.
        statement_timeout_seconds: the server cancels a longer statement; 0 means never.
        lease_seconds: the lifetime of a lease that is not renewed. The server ends a session that
            is idle in a transaction for so long, and cancels a wait for a lock after twice that.

    Raises:
        BadConnectionError: the login may not act as `role`, the role does not exist, or the
            connection's extra has an unknown option.
        psycopg.OperationalError: the server cannot be reached.
    """
    lease = round(lease_seconds * 1000)
    # the server applies the last value of an option
    options = (
        f"{address.extra.get('options') or ''} "
        f"-c timezone=UTC -c statement_timeout={statement_timeout_seconds}s "
        f"-c lock_timeout={2 * lease} -c idle_in_transaction_session_timeout={lease} "
        "-c client_connection_check_interval=1000"
    )
    if role is not None:
        options += f" -c role={role}"
    session: dict[str, Any] = {
        "options": options,
        "application_name": application_name,
        "autocommit": True,
        "prepare_threshold": NEVER_BY_ITSELF,
        "connect_timeout": 10,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    try:
        return by(session) if by else psycopg.connect(address.conninfo, **session)
    except psycopg.ProgrammingError as error:
        raise BadConnectionError(f"{address.name}: {str(error).strip()}; see its extra") from None
    except psycopg.OperationalError as error:
        if role is not None and f'"{role}"' in str(error) and "role" in str(error):
            raise BadConnectionError(
                f"the database login may not act as {role}: run `python -m venue_analytics "
                f"migrate` first, then GRANT {role} TO that login ({str(error).strip()})"
            ) from None
        raise
