"""What can go wrong, told apart by whether trying again can help."""

from __future__ import annotations


class AnalyticsError(Exception):
    """A fault that a person must see."""


class PermanentError(AnalyticsError):
    """Bad data, bad settings, a schema that does not fit: trying again changes nothing."""


class TransientError(AnalyticsError):
    """Something that is not there yet, or not now: the same work may succeed later."""


class LeaseLostError(TransientError):
    """Another attempt has the venue now: this one writes no more of it."""


class SettingsError(PermanentError):
    """A setting is not allowed; the message names the Variable, the field and what is."""
