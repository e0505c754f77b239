"""Every transaction has exactly one tenant."""

from __future__ import annotations

import psycopg
import pytest
from tests.databases import Database
from tests.harness.simple_venues import NORTH, SOUTH

from venue_analytics.harness.tenant import tenant_transaction

pytestmark = pytest.mark.both_versions

TENANT = "SELECT current_setting('app.current_tenant_id', TRUE)"


def test_a_transaction_without_a_tenant_is_refused(simple: Database) -> None:
    with (
        simple.jobs() as connection,
        pytest.raises(ValueError, match="exactly one tenant"),
        tenant_transaction(connection, None),
    ):
        raise AssertionError("the transaction was opened")


def test_the_tenant_is_set_only_inside_its_transaction(simple: Database) -> None:
    with simple.jobs() as connection:
        with tenant_transaction(connection, NORTH):
            assert connection.execute(TENANT).fetchone() == (str(NORTH),)
        with tenant_transaction(connection, SOUTH):
            assert connection.execute(TENANT).fetchone() == (str(SOUTH),)
        assert connection.execute(TENANT).fetchone() == ("",)


def test_without_a_tenant_reading_a_table_raises(simple: Database) -> None:
    with simple.jobs() as connection, pytest.raises(psycopg.Error):
        connection.execute("SELECT count(*) FROM customer_rfm_state")
