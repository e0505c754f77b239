"""Failures in words: one line, without a value of anybody's row."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from venue_analytics.database.printable import printable
from venue_analytics.harness.database_errors import translate_error
from venue_analytics.harness.errors import AnalyticsError, PermanentError
from venue_analytics.harness.interrupts import Stopped
from venue_analytics.harness.unit import Unit


@dataclass(frozen=True)
class UnitFailure:
    """A unit that failed, and why."""

    unit: Unit
    error: Exception

    @property
    def permanent(self) -> bool:
        """Whether a retry changes nothing."""
        return isinstance(self.error, PermanentError)

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.unit.name}: {describe(self.error)}"


def describe(error: BaseException) -> str:
    """Return what went wrong in one printable line; never raise.

    An error of the database comes without the values of anybody's row.
    """
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(error, psycopg.Error):
        error = translate_error(error)
    try:
        text = printable(" ".join(str(error).split()))
    except Exception:  # noqa: BLE001  an exception may fail to describe itself
        text = ""
    if isinstance(error, AnalyticsError | Stopped) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
