"""Alembic's entry point: run the migrations on the connection that migrate.py passes."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="alembic_version",
    version_table_schema="jobs",
)
with context.begin_transaction():
    context.run_migrations()
