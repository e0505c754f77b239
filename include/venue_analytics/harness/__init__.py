"""What makes a job safe; this is all of it that a job may import."""

from venue_analytics.harness.errors import (
    AnalyticsError,
    PermanentError,
    SettingsError,
    TransientError,
)
from venue_analytics.harness.job import (
    Again,
    Grouped,
    GroupRun,
    Job,
    Outcome,
    Venue,
    VenueResult,
    VenueRun,
)
from venue_analytics.harness.settings import SHAPES_RESULTS, JobSettings

__all__ = [
    "SHAPES_RESULTS",
    "Again",
    "AnalyticsError",
    "GroupRun",
    "Grouped",
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
