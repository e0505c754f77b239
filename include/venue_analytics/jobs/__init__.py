"""The jobs: what happens to one venue."""

from typing import Any

from venue_analytics.harness import Job
from venue_analytics.jobs.rfm_scoring import RFM_SCORING

JOBS: dict[str, Job[Any]] = {job.name: job for job in (RFM_SCORING,)}

__all__ = ["JOBS", "RFM_SCORING"]
