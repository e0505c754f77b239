"""What makes a job safe; a job may import this face alone."""

from venue_analytics.harness.errors import (
    AnalyticsError,
    PermanentError,
    SettingsError,
    TransientError,
)
from venue_analytics.harness.job import (
    Action,
    Continue,
    Effect,
    Grouped,
    GroupRun,
    Job,
    Outcome,
    Preview,
    UnitResult,
    UnitRun,
)
from venue_analytics.harness.moments import Moment, format_moment
from venue_analytics.harness.parameters import RunParameters
from venue_analytics.harness.report import Column, Report, Table, counted
from venue_analytics.harness.settings import (
    SHAPES_RESULTS,
    JobSettings,
    TenantSettings,
    VenueSettings,
)
from venue_analytics.harness.unit import Unit, UnitKind

__all__ = [
    "SHAPES_RESULTS",
    "Action",
    "AnalyticsError",
    "Column",
    "Continue",
    "Effect",
    "GroupRun",
    "Grouped",
    "Job",
    "JobSettings",
    "Moment",
    "Outcome",
    "PermanentError",
    "Preview",
    "Report",
    "RunParameters",
    "SettingsError",
    "Table",
    "TenantSettings",
    "TransientError",
    "Unit",
    "UnitKind",
    "UnitResult",
    "UnitRun",
    "VenueSettings",
    "counted",
    "format_moment",
]
