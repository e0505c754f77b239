"""Schemas `source` and `jobs`: the source contract, and the state of the harness."""

from venue_analytics.database.migrations import run_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the .sql file of the same name."""
    run_sql(__file__, creates=())
