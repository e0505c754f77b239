"""Source contract, history, and the target tables of RFM scoring."""

from venue_analytics.database.migrations import run_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the .sql file of the same name."""
    run_sql(
        __file__,
        creates=(
            "customer_rfm_scores",
            "customer_rfm_state",
            "customer_segments",
            "customer_lifetime_value",
            "customer_venue_value",
            "tenant_currency",
            "venue_rfm_state",
        ),
    )
