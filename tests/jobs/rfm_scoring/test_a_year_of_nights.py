"""A year of the demo's sales, night by night: history and movements equal the oracle's."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import redis
from psycopg import sql
from psycopg.rows import dict_row
from tests.databases import Database, Servers
from tests.jobs.rfm_scoring import rfm_oracle as oracle
from tests.jobs.rfm_scoring.rfm_oracle import Row, Rules, Source, Standing, VenueScores
from tests.jobs.rfm_scoring.scoring import HISTORY_VIEWS, VIEWS, PlatformHouse, make_settings
from tests.jobs.rfm_scoring.segment_history_oracle import SegmentHistory, segment_movements

from venue_analytics.database.migrate import migrate
from venue_analytics.demo.platform import TENANTS, load_platform

UNTIL = datetime(2026, 3, 1, tzinfo=UTC)
NIGHTS = [UNTIL - timedelta(days=days) for days in range(364, -1, -1)]
TENANT = TENANTS["Copperline Stages"]
NAMES = ("Harbourlight Theatre", "Ironbridge Arena")
AUDITED, STANDARD = Rules(), Rules(rule_set="standard")
#: From this night on, one of the venues has the other rule set.
CHANGED = NIGHTS[240]


@pytest.fixture(scope="module")
def demo(servers: Servers) -> Database:
    """Return the demo platform at a fiftieth of its size, on one PostgreSQL version only."""
    server = servers.postgres(18)
    server.prepare({"year": "analytics_owner"})
    database = Database(server, "year")
    load_platform(database.uri("analytics_owner"), until=UNTIL, scale=0.02)
    migrate(database.address("analytics_owner"), adapter="platform")
    return database


def read(session: psycopg.Connection[Any]) -> dict[str, list[Row]]:
    """Read the tenant's rows of the platform's tables."""
    with session.cursor(row_factory=dict_row) as cursor:
        return {
            table: cursor.execute(
                sql.SQL("SELECT * FROM {} WHERE tenant_id = %s").format(sql.Identifier(table)),
                [TENANT],
            ).fetchall()
            for table in PlatformHouse.source_tables
        }


def of_venue(source: Source, venue_id: UUID) -> Source:
    """Return the part of the source that concerns a venue; the oracle scans all of its input."""
    orders = [order for order in source.orders if order.venue_id == venue_id]
    ids = {order.order_id for order in orders}
    buyers = {order.customer_id for order in orders}
    return Source(
        venues=[venue for venue in source.venues if venue.venue_id == venue_id],
        orders=orders,
        refunds=[refund for refund in source.refunds if refund.order_id in ids],
        customers=[one for one in source.customers if one.customer_id in buyers],
    )


@pytest.mark.deep
def test_history_and_movements_of_a_year_equal_the_oracles(
    demo: Database, redis_client: redis.Redis
) -> None:
    with PlatformHouse(demo, redis_client) as house:
        tables = read(house.superuser)
        theatre, arena = (
            next(row["id"] for row in tables["venues"] if row["name"] == name) for name in NAMES
        )
        source = oracle.platform_source(tables)
        parts = {venue_id: of_venue(source, venue_id) for venue_id in (theatre, arena)}
        standing = {venue_id: Standing() for venue_id in parts}
        histories = {venue_id: SegmentHistory() for venue_id in parts}
        for number, as_of in enumerate(NIGHTS):
            rules = {theatre: STANDARD if as_of >= CHANGED else AUDITED, arena: AUDITED}
            asked = {
                "include_venues": [theatre, arena],
                "venues": {theatre: {"rule_set": rules[theatre].rule_set}},
            }
            scoring = house.run(as_of, settings=asked)
            assert scoring.unfinished == []
            scores = []
            for venue_id, part in parts.items():
                (venue,) = part.venues
                of_night = oracle.score_venue(
                    part, venue, as_of, rules[venue_id], standing[venue_id]
                )
                rules_hash = make_settings(settings=asked).for_unit(venue_id).rules_hash()
                histories[venue_id].note(of_night, rules_hash)
                standing[venue_id] = of_night.standing
                scores.append(of_night)
            if number % 52 == 0:
                compare(house, scores)
        compare(house, scores)
        rows = [row for history in histories.values() for row in history.rows]
        assert in_order(house, "customer_segment_history") == by_key(
            "customer_segment_history", rows
        )
        assert in_order(house, "segment_movements") == by_key(
            "segment_movements", segment_movements(rows)
        )
    # the year had many movements, and one change of rules
    kinds = Counter(row["kind"] for row in rows)
    assert kinds["movement"] > 150
    assert kinds["rules"] > 10


def compare(house: PlatformHouse, scores: list[VenueScores]) -> None:
    """Compare every column of the views with the oracle's."""
    expected = {
        "customer_rfm_scores": oracle.customer_rfm_scores(scores),
        "customer_segments": oracle.customer_segments(scores),
        "customer_venue_value": oracle.customer_venue_value(scores),
        "customer_lifetime_value": oracle.customer_lifetime_value(scores),
    }
    for name, rows in expected.items():
        assert in_order(house, name) == by_key(name, rows), name


def in_order(house: PlatformHouse, name: str) -> list[Row]:
    return by_key(name, house.view(name, TENANT))


def by_key(name: str, rows: list[Row]) -> list[Row]:
    columns = (VIEWS | HISTORY_VIEWS)[name]
    return sorted(rows, key=lambda row: [str(row[column]) for column in columns])
