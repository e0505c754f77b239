"""Translate a database's errors: whether a retry can help, and no value of a row."""

from __future__ import annotations

import psycopg

from venue_analytics.harness.errors import (
    AnalyticsError,
    PermanentError,
    TransientError,
)

CHECK = "run `python -m venue_analytics check-source`, and `migrate` if that says so"

#: Classes of SQLSTATE: a schema or table that is not there, does not fit, or may not be used.
UNFIT = ("3F", "42")


def translate_error(error: psycopg.Error) -> AnalyticsError:
    """Translate an error of the database.

    The server's primary message names tables, columns and constraints, and is kept. Its detail, and
    the message about a value that cannot be read, hold values, which may be personal.
    """
    kind = type(error).__name__
    message = error.diag.message_primary or " ".join(str(error).split())
    if (error.sqlstate or "")[:2] in UNFIT:
        return PermanentError(f"the database does not fit: {message} ({kind}); {CHECK}")
    if isinstance(error, psycopg.DataError):
        return PermanentError(f"the source holds a value that cannot be read ({kind}); {CHECK}")
    if isinstance(error, psycopg.errors.CheckViolation | psycopg.errors.NotNullViolation):
        return PermanentError(f"{kind}: {message}")
    if isinstance(error, psycopg.errors.QueryCanceled):
        return TransientError(f"{message} ({kind}); timeout_minutes is the limit")
    return TransientError(f"{kind}: {message}")
