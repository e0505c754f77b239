"""From an Airflow connection to a psycopg connection that runs with one role's rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from venue_analytics.database.server_address import BadConnectionError, ServerAddress

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


class DatabaseAddress(ServerAddress):
    """Where the analytics database is; never shows its password."""

    SERVER = "database"
    TYPES = ("postgres", "postgresql")
    EXAMPLE = "postgresql://user:password@host:5432/database"

    @property
    def conninfo(self) -> str:
        """It as libpq reads it, with the password."""
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
    """Open a connection that has the rights of `role` only, whoever logs in.

    It is in autocommit mode: transactions are the blocks that say so. The session's time zone is
    UTC. Statements are not prepared unless they say so: a generic plan of the scoring queries was
    measured at up to 24 times the cost of one made for the venue.

    Args:
        address: where the database is; the `options` of its extra count, but yield to ours.
        by: opens it in another way, such as Airflow's hook; takes psycopg.connect's arguments.
        role: the role whose rights hold; None keeps the login's own.
        application_name: shown in pg_stat_activity.
        statement_timeout_seconds: the server cancels a longer statement; 0 means never.
        lease_seconds: how long a lease lasts that nobody renews.

    Raises:
        BadConnectionError: the login may not act as `role`, the role does not exist, or the
            connection's extra names an option that there is not.
        psycopg.OperationalError: the server cannot be reached.
    """
    lease = round(lease_seconds * 1000)
    # the server takes the last of two values
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
