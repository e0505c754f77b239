"""RFM scoring: each venue's customers by recency, frequency and monetary value."""

from venue_analytics.harness import Job
from venue_analytics.jobs.rfm_scoring.score import preview_venue, remove, score_venue, venues_held
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

RFM_SCORING = Job(
    name="rfm_scoring",
    settings=RfmScoringSettings,
    steps=(score_venue,),
    remove=remove,
    venues_held=venues_held,
    preview=preview_venue,
)
