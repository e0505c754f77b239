"""A failure in words: one line, without a value of anybody's row."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import psycopg

from venue_analytics.harness.database_errors import in_words
from venue_analytics.harness.errors import AnalyticsError, PermanentError
from venue_analytics.harness.interrupts import Stopped
from venue_analytics.harness.job import Venue


@dataclass(frozen=True)
class VenueFailure:
    """A venue that could not be done, and why."""

    venue: Venue
    error: Exception

    @property
    def permanent(self) -> bool:
        """Whether trying again changes nothing."""
        return isinstance(self.error, PermanentError)

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.venue.name}: {describe(self.error)}"


def describe(error: BaseException) -> str:
    """Say what went wrong in one printable line; never raises.

    What the database says is told without the values of anybody's row.
    """
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(error, psycopg.Error):
        error = in_words(error)
    try:
        text = printable(" ".join(str(error).split()))
    except Exception:  # noqa: BLE001  an exception may fail at saying what it is
        text = ""
    if isinstance(error, AnalyticsError | Stopped) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def printable(text: str) -> str:
    """Replace what no terminal and no database takes: control characters, halves of pairs."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(one) in ("Cc", "Cs") else one
        for one in text
    )
