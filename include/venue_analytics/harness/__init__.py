"""What makes a job safe; this is all of it that a job may import."""

from venue_analytics.harness.errors import (
    AnalyticsError,
    PermanentError,
    SettingsError,
    TransientError,
)
from venue_analytics.harness.job import Job, Outcome, Venue, VenueResult, VenueRun
from venue_analytics.harness.settings import PER_VENUE, SHAPES_RESULTS, JobSettings

__all__ = [
    "PER_VENUE",
    "SHAPES_RESULTS",
    "AnalyticsError",
    "Job",
    "JobSettings",
    "Outcome",
    "PermanentError",
    "SettingsError",
    "TransientError",
    "Venue",
    "VenueResult",
    "VenueRun",
]
