"""What can go wrong, by whether a retry can help."""

from __future__ import annotations

from uuid import UUID


class AnalyticsError(Exception):
    """A fault that a person must see.

    Attributes:
        unit_id: the one unit of a group that it is about; None if it is about all.
    """

    def __init__(self, message: str, *, unit_id: UUID | None = None) -> None:
        super().__init__(message)
        self.unit_id = unit_id


class PermanentError(AnalyticsError):
    """Bad data, bad settings, a schema that does not fit: a retry changes nothing."""


class TransientError(AnalyticsError):
    """Something that is not there yet, or not now: a retry may succeed."""


class LeaseLostError(TransientError):
    """Another attempt has the unit now: this one may not write any more."""


class SettingsError(PermanentError):
    """A setting is not allowed; the message names the Variable, the field and what is allowed."""
