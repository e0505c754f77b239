"""From an Airflow connection to a client of Redis or Valkey."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from venue_analytics.harness.errors import PermanentError

if TYPE_CHECKING:
    import redis

#: An answer later than this counts as none: a lease's length is not to be spent on waiting.
TIMEOUT_SECONDS = 5.0
#: Extras of an Airflow connection that the client takes, as Airflow's own hook does.
EXTRAS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_keyfile", "ssl_certfile", "ssl_check_hostname")
FORMS = (
    "redis://user:password@host:6379/0 (rediss:// for TLS), or Airflow's JSON with conn_type, "
    "host, port, login, password and extra"
)


@dataclass(frozen=True)
class RedisAddress:
    """Where Redis is; never shows its password."""

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    extra: tuple[tuple[str, Any], ...] = ()

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
        name: str,
    ) -> RedisAddress:
        """Build an address from the fields of an Airflow connection.

        Raises:
            PermanentError: the number of the database is none.
        """
        db = extra.get("db") or database or 0
        try:
            number = int(db)
        except (TypeError, ValueError):
            raise PermanentError(
                f"{name}: db = {db!r}: must be the number of a Redis database, such as 0"
            ) from None
        return cls(
            host or "localhost",
            port or 6379,
            number,
            user or None,
            password or None,
            str(extra.get("ssl", False)).lower() in ("true", "1"),
            tuple((key, extra[key]) for key in EXTRAS if key in extra),
        )

    @classmethod
    def parse(cls, value: str, *, name: str) -> RedisAddress:
        """Read the value of an `AIRFLOW_CONN_…` variable: a URI, or Airflow's JSON.

        Args:
            value: the variable's value.
            name: the variable's name, for messages.

        Raises:
            PermanentError: the value is neither.
        """
        try:
            if value.lstrip().startswith("{"):
                fields = json.loads(value)
                extra = fields.get("extra") or {}
                return cls.from_parts(
                    host=fields.get("host"),
                    port=fields.get("port"),
                    user=fields.get("login"),
                    password=fields.get("password"),
                    database=fields.get("schema"),
                    extra=json.loads(extra) if isinstance(extra, str) else dict(extra),
                    name=name,
                )
            uri = urlsplit(value)
            port = uri.port
        except (ValueError, TypeError, AttributeError):
            # its own text may hold the password
            raise PermanentError(f"{name} cannot be read: must be {FORMS}") from None
        if uri.scheme not in ("redis", "rediss"):
            raise PermanentError(
                f"{name} must be {FORMS}; it begins with {uri.scheme or 'no scheme'}"
            )
        extra = dict(parse_qsl(uri.query))
        if uri.scheme == "rediss":
            extra["ssl"] = "true"
        return cls.from_parts(
            host=unquote(uri.hostname) if uri.hostname else None,
            port=port,
            user=unquote(uri.username) if uri.username else None,
            password=unquote(uri.password) if uri.password else None,
            database=uri.path.lstrip("/") or None,
            extra=extra,
            name=name,
        )

    @classmethod
    def from_environment(cls, name: str) -> RedisAddress:
        """Take what an environment variable says.

        Raises:
            PermanentError: it is not set, or cannot be read.
        """
        if value := os.environ.get(name):
            return cls.parse(value, name=name)
        raise PermanentError(
            f"no Redis given: set {name}, for example redis://host:6379/0; nothing is processed "
            "without a lease"
        )

    def client(self) -> redis.Redis:
        """Give a client; it connects when it is first used, and never asks twice."""
        # here: a quarter of a second, which a DAG file's parsing does not need
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        options = dict(self.extra)
        return redis.Redis(
            host=self.host,
            port=self.port,
            db=self.db,
            username=self.user,
            password=self.password,
            ssl=self.tls,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
