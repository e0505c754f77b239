"""A failure in words: one line, without a value of anybody's row."""

from __future__ import annotations

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
    """Say what went wrong in one line, without a value of anybody's row."""
    if isinstance(error, psycopg.Error):
        error = in_words(error)
    text = " ".join(str(error).split())
    if isinstance(error, AnalyticsError | Stopped):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
