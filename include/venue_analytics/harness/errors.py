"""What can go wrong, told apart by whether trying again can help."""

from __future__ import annotations

from uuid import UUID


class AnalyticsError(Exception):
    """A fault that a person must see.

    Attributes:
        venue_id: of the one venue of a group that it is about; None if it is about all.
    """

    def __init__(self, message: str, *, venue_id: UUID | None = None) -> None:
        super().__init__(message)
        self.venue_id = venue_id


class PermanentError(AnalyticsError):
    """Bad data, bad settings, a schema that does not fit: trying again changes nothing."""


class TransientError(AnalyticsError):
    """Something that is not there yet, or not now: the same work may succeed later."""


class LeaseLostError(TransientError):
    """Another attempt has the venue now: this one writes no more of it."""


class SettingsError(PermanentError):
    """A setting is not allowed; the message names the Variable, the field and what is."""
