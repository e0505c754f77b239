"""From an Airflow connection to a client of Redis or Valkey."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from venue_analytics.database.server_address import ServerAddress
from venue_analytics.harness.errors import PermanentError

if TYPE_CHECKING:
    import redis

#: An answer later than this counts as none: a lease's length is not to be spent on waiting.
TIMEOUT_SECONDS = 5.0
#: Extras of an Airflow connection that the client takes, as Airflow's own hook does.
EXTRAS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_keyfile", "ssl_certfile", "ssl_check_hostname")


class RedisAddress(ServerAddress):
    """Where Redis is; never shows its password."""

    SERVER = "Redis"
    TYPES = ("redis", "rediss")
    EXAMPLE = "redis://user:password@host:6379/0 (rediss:// for TLS)"

    @property
    def db(self) -> int:
        """The number of the database.

        Raises:
            PermanentError: it is no number.
        """
        db = self.extra.get("db") or self.schema or 0
        try:
            return int(db)
        except (TypeError, ValueError):
            raise PermanentError(
                f"{self.name}: db = {db!r}: must be the number of a Redis database, such as 0"
            ) from None

    def client(self, *, by: Callable[[], redis.Redis] | None = None) -> redis.Redis:
        """Return a client, which connects when it is first used and never retries.

        Args:
            by: makes it in another way, such as Airflow's hook.

        Raises:
            PermanentError: the connection asks for cluster mode, or its database is no number.
        """
        if cluster := self.extra.get("cluster"):
            raise PermanentError(
                f"{self.name}: cluster = {cluster!r}: must be left out, and the connection lead to "
                "one server: leases of several venues are asked for at once"
            )
        # here: 0.1 s, which a DAG file's parsing does not need
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        if by:
            client = by()
        else:
            tls = self.conn_type == "rediss" or str(self.extra.get("ssl")).lower() in ("true", "1")
            extra = {key: self.extra[key] for key in EXTRAS if key in self.extra}
            client = redis.Redis(username=self.login, password=self.password, ssl=tls, **extra)
        client.set_retry(Retry(NoBackoff(), 0))
        client.get_connection_kwargs().update(
            host=self.host or "localhost",
            port=self.port or 6379,
            db=self.db,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
        return client
