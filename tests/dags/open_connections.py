"""Opens Airflow's connections as a task does, once for each line of JSON on standard input.

It is a separate process because Airflow is configured by its environment and warns when imported.
Each line is the value of a connection. The answer is one line of JSON on standard output: the
session's settings as the server reports them, or the error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any
from unittest.mock import patch

import psycopg


def described(connection: psycopg.Connection) -> dict[str, Any]:
    """Return the settings of a session, as the server and the driver report them."""
    rows = connection.execute(
        "SELECT name, setting FROM pg_settings WHERE source = 'client' "
        "UNION ALL SELECT 'current_user', current_user::text"
    ).fetchall()
    libpq = connection.info.get_parameters()
    return dict(rows) | {
        "autocommit": connection.autocommit,
        "prepare_threshold": connection.prepare_threshold,
        "libpq": {key: value for key, value in libpq.items() if key != "options"},
    }


def database(value: str) -> dict[str, Any]:
    """Connect to the database as a job does."""
    from venue_analytics.orchestration import open_database

    os.environ["AIRFLOW_CONN_ANALYTICS_DB"] = value
    with open_database(application_name="a job", statement_timeout_seconds=90) as connection:
        return described(connection)


def redis(value: str, timeout_seconds: float | None = None) -> dict[str, Any]:
    """Connect to Redis as a job does."""
    from venue_analytics.harness import redis_server
    from venue_analytics.orchestration import redis_client

    os.environ["AIRFLOW_CONN_ANALYTICS_REDIS"] = value
    with patch.object(
        redis_server, "TIMEOUT_SECONDS", timeout_seconds or redis_server.TIMEOUT_SECONDS
    ):
        client = redis_client()
    with client:
        return dict(client.client_info())


def main() -> None:
    """Answer each line."""
    # the answers have their own stream; whatever Airflow prints goes to standard error
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = json.loads(line)
        ask = {"database": database, "redis": redis}[question.pop("server")]
        began = time.monotonic()
        try:
            answer = ask(**question)
        except Exception as error:  # noqa: BLE001 - the test knows which it expects
            answer = {
                "error": f"{type(error).__name__}: {error}",
                "seconds": time.monotonic() - began,
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
