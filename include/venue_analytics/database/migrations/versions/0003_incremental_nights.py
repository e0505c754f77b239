"""Incremental nights: what scores rest on, who moved between segments, what is only tried."""

from venue_analytics.database.migrations import run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the .sql file of the same name."""
    run_sql(
        __file__,
        creates=(
            "customer_segment_change",
            "customer_segment_history",
            "segment_movements",
            "venue_rfm_rules",
        ),
    )
