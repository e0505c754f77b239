"""Parse an Airflow connection without Airflow, from a URI or Airflow's JSON."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, unquote, urlsplit


class BadConnectionError(Exception):
    """A connection is missing, invalid or not permitted; the message says what to do."""


@dataclass(frozen=True)
class ServerAddress:
    """The address of a server; its repr hides the password.

    Attributes:
        name: the name of the connection or the variable, for messages.
    """

    SERVER: ClassVar[str]
    TYPES: ClassVar[tuple[str, ...]]
    EXAMPLE: ClassVar[str]

    name: str
    conn_type: str | None
    host: str | None
    port: int | None
    login: str | None
    password: str | None = field(repr=False)
    schema: str | None
    extra: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, value: str, *, name: str) -> Self:
        """Parse the value of an `AIRFLOW_CONN_…` variable: a URI, or Airflow's JSON.

        Args:
            value: the variable's value.
            name: the variable's name, for messages.

        Raises:
            BadConnectionError: the value is neither, or is of another type of server.
        """
        forms = (
            f"must be {cls.EXAMPLE}, or Airflow's JSON with conn_type, host, port, login, "
            "password, schema and extra"
        )
        try:
            fields = json.loads(value) if value.lstrip().startswith("{") else _of_uri(value)
            extra = fields.get("extra") or {}
            extra = json.loads(extra) if isinstance(extra, str) else extra
            if not isinstance(extra, dict):
                raise ValueError("extra is not an object")
            port = int(fields["port"]) if fields.get("port") else None
        except json.JSONDecodeError:
            raise BadConnectionError(f"{name} is not valid JSON: {forms}") from None
        except (TypeError, ValueError):
            # The error's own text may contain the password.
            raise BadConnectionError(f"{name} cannot be read: {forms}") from None
        conn_type = fields.get("conn_type")
        if conn_type not in (None, *cls.TYPES):
            raise BadConnectionError(f"{name} {forms}; its type is {conn_type or 'missing'}")
        host, login, password, schema = (
            str(fields[key]) if fields.get(key) not in (None, "") else None
            for key in ("host", "login", "password", "schema")
        )
        return cls(name, conn_type, host, port, login, password, schema, extra)

    @classmethod
    def from_environment(cls, *names: str) -> Self:
        """Parse the first of these environment variables that is set.

        Raises:
            BadConnectionError: none is set, or its value is invalid.
        """
        for name in names:
            if value := os.environ.get(name):
                return cls.parse(value, name=name)
        raise BadConnectionError(f"no {cls.SERVER} given: set {names[-1]}, to {cls.EXAMPLE}")


def _of_uri(value: str) -> dict[str, Any]:
    uri = urlsplit(value)
    query = dict(parse_qsl(uri.query))
    return {
        "conn_type": uri.scheme,
        "host": unquote(uri.hostname or ""),
        "port": uri.port,
        "login": unquote(uri.username or ""),
        "password": unquote(uri.password or ""),
        "schema": unquote(uri.path.lstrip("/")),
        # Airflow puts an extra there whose values are not all strings
        "extra": query.get("__extra__", query),
    }
