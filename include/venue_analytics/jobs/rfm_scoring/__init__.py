"""Score each venue's customers by recency, frequency and monetary value."""

from venue_analytics.harness import Grouped, Job, Preview
from venue_analytics.jobs.rfm_scoring import report, score
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

JOB = Job(
    name="rfm_scoring",
    settings=RfmScoringSettings,
    steps={"score": Grouped(score.score_venues)},
    remove=score.remove,
    units_held=score.venues_held,
    preview=Preview(score.preview_venue, report.report_preview),
    report=report.report,
    top=score.best_customers,
)
