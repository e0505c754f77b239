"""The target tables of RFM scoring."""

from venue_analytics.database.migrations import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the .sql file of the same name."""
    run_sql(
        __file__,
        creates=(
            "customer_lifetime_value",
            "customer_rfm_scores",
            "customer_rfm_state",
            "customer_segment_change",
            "customer_segment_history",
            "customer_segments",
            "customer_venue_value",
            "segment_movements",
            "tenant_currency",
            "venue_rfm_rules",
            "venue_rfm_state",
        ),
    )
