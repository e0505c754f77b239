"""RFM scoring: each venue's customers by recency, frequency and monetary value."""

from venue_analytics.harness import Grouped, Job
from venue_analytics.jobs.rfm_scoring import score
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

RFM_SCORING = Job(
    name="rfm_scoring",
    settings=RfmScoringSettings,
    steps=(Grouped(score.score_venues),),
    remove=score.remove,
    venues_held=score.venues_held,
    preview=score.preview_venue,
)
