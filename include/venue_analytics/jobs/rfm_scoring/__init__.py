"""RFM scoring: each venue's customers by recency, frequency and monetary value."""

from venue_analytics.harness import Grouped, Job
from venue_analytics.jobs.rfm_scoring.score import (
    preview_venue,
    remove,
    score_venues,
    venues_held,
)
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

RFM_SCORING = Job(
    name="rfm_scoring",
    settings=RfmScoringSettings,
    steps=(Grouped(score_venues),),
    remove=remove,
    venues_held=venues_held,
    preview=preview_venue,
)
