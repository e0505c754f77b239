"""${message}."""

from venue_analytics.database.migrations import run_sql

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the .sql file of the same name."""
    run_sql(__file__, creates=())
