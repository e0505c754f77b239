"""What makes a venue's run safe: fencing tokens, checkpoints, rounds of a batch, dead letters."""

from venue_analytics.database.migrations import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the .sql file of the same name."""
    run_sql(__file__, creates=())
