"""The platform's tables, changed by day and scored by night, with the oracles alongside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID, uuid5

import psycopg
from psycopg import sql
from tests.jobs.rfm_scoring import rfm_oracle as oracle
from tests.jobs.rfm_scoring.rfm_oracle import Row, Rules, Source, Standing, Venue, VenueScores
from tests.jobs.rfm_scoring.scoring import (
    HISTORY_VIEWS,
    OTHER_TENANT,
    STATE_TABLES,
    TENANT,
    VIEWS,
    PlatformHouse,
    make_settings,
    uid,
)
from tests.jobs.rfm_scoring.segment_history_oracle import SegmentHistory, segment_movements

from venue_analytics.database.connection import connect
from venue_analytics.harness.history import Attempt
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FIRST = datetime(2023, 7, 1, 2, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TENANTS = (TENANT, OTHER_TENANT)
HALL, CLUB, STAGE = (uid(name) for name in ("hall", "club", "stage"))
#: Two venues of one tenant, and the only venue of another.
TENANT_OF = {HALL: TENANT, CLUB: TENANT, STAGE: OTHER_TENANT}
VENUES = tuple(TENANT_OF)
EVENTS = tuple(uid(f"event {number}") for number in range(5))
BUYERS = tuple(uid(f"buyer {number}") for number in range(6))
ANNA, BEN, CLEO, DAN = BUYERS[:4]
HALLS, CLUBS = EVENTS[0], EVENTS[2]


class Platform:
    """The platform's tables, the results of each night, and the expected results."""

    def __init__(self, house: PlatformHouse) -> None:
        self.house = house
        house.clear()
        # hundreds of sequences use these tables one after another
        tables = sql.SQL(", ").join(map(sql.Identifier, (*house.source_tables, *STATE_TABLES)))
        house.superuser.execute(sql.SQL("VACUUM {}").format(tables))
        self.tables: dict[str, dict[UUID, Row]] = {name: {} for name in house.source_tables}
        self.stored: dict[str, dict[UUID, Row]] = {name: {} for name in house.source_tables}
        self.rules = Rules()
        self.overrides: dict[UUID, Mapping[str, Any]] = {}
        self.last, self.next = FIRST - DAY, FIRST
        self.scores: dict[UUID, VenueScores] = {}
        self.standing: dict[UUID, Standing] = {}
        self.histories = {venue_id: SegmentHistory() for venue_id in VENUES}
        #: For each venue: the as_of, the rules, and whether the venue was gone.
        self.done: dict[UUID, tuple[datetime, str, bool]] = {}
        dates = {"created_at": LONG_AGO, "updated_at": LONG_AGO}
        for venue_id, tenant_id in TENANT_OF.items():
            self.put(
                "venues",
                venue_id,
                tenant_id=tenant_id,
                name=f"venue {VENUES.index(venue_id)}",
                max_capacity=100,
                status="ACTIVE",
                deleted_at=None,
                **dates,
            )
        for event_id, venue_id in zip(EVENTS, (HALL, HALL, CLUB, CLUB, STAGE), strict=True):
            self.put(
                "events",
                event_id,
                tenant_id=TENANT_OF[venue_id],
                venue_id=venue_id,
                name="an event",
                category="music",
                status="PUBLISHED",
                **dates,
            )
        for buyer in BUYERS:
            self.register(buyer)

    # changes at the platform

    def put(self, table: str, row_id: UUID, **columns: Any) -> UUID:
        """Insert a row, or change some of its columns."""
        row = self.tables[table].get(row_id, {"id": row_id})
        self.tables[table][row_id] = row | columns
        return row_id

    def register(self, buyer: UUID, tenant_id: UUID = TENANT) -> None:
        """Open or reopen an account."""
        self.put(
            "users",
            buyer,
            tenant_id=tenant_id,
            email="somebody@example.org",
            status="ACTIVE",
            created_at=LONG_AGO,
            updated_at=LONG_AGO,
            deleted_at=None,
        )

    def buy(
        self,
        buyer: UUID | None,
        at: datetime,
        cents: int | None = 1000,
        *,
        event: UUID = EVENTS[0],
        status: str = "CONFIRMED",
        currency: str | None = "USD",
        written: datetime | None = None,
    ) -> UUID:
        """Place an order; updated_at is when it was placed unless `written` is given."""
        return self.put(
            "orders",
            uuid5(TENANT, f"order {len(self.tables['orders'])} {at}"),
            tenant_id=TENANT_OF[self.tables["events"][event]["venue_id"]],
            user_id=buyer,
            event_id=event,
            status=status,
            total_cents=cents,
            currency=currency,
            ticket_quantity=1,
            created_at=at,
            updated_at=written or at,
        )

    def refund(
        self,
        order_id: UUID,
        at: datetime,
        cents: int,
        *,
        status: str = "COMPLETED",
    ) -> UUID:
        """Add a refund."""
        return self.put(
            "order_refunds",
            uuid5(order_id, f"refund {len(self.tables['order_refunds'])} {at}"),
            tenant_id=self.tables["orders"][order_id]["tenant_id"],
            order_id=order_id,
            refund_amount_cents=cents,
            refund_status=status,
            created_at=at,
            updated_at=at,
        )

    def ask_to_erase(self, buyer: UUID, status: str = "PENDING") -> None:
        """Add a buyer's request to be erased, or change its status."""
        self.put(
            "gdpr_deletion_requests",
            uuid5(buyer, "erasure"),
            tenant_id=TENANT,
            user_id=buyer,
            status=status,
            created_at=LONG_AGO,
            updated_at=LONG_AGO,
        )

    def lose(self, table: str, row_id: UUID) -> None:
        """Delete a row; with an order, also its refunds."""
        self.tables[table].pop(row_id, None)
        if table == "orders":
            refunds = self.tables["order_refunds"]
            for refund_id in [key for key, row in refunds.items() if row["order_id"] == row_id]:
                del refunds[refund_id]

    def is_open(self, venue_id: UUID) -> bool:
        """Return whether a venue is open, and so is scored."""
        return bool(self.tables["venues"][venue_id]["status"] == "ACTIVE")

    # nights

    def night(
        self,
        as_of: datetime,
        *,
        venues: list[UUID] | None = None,
        force: bool = False,
        killed_before: int | None = None,
    ) -> dict[UUID, Attempt]:
        """Score as of a moment; all views and the history must then equal the oracles'."""
        self.store()
        chosen = self.chosen()
        plan = partial(self.house.plan, as_of, chosen, venues=venues, force=force)
        if killed_before is not None:
            with suppress(psycopg.OperationalError):
                self.house.work(plan(), opener=self.killed_before(killed_before))
        scoring = self.house.work(plan())
        assert scoring.unfinished == []
        self.expect(as_of, chosen, venues, force=force)
        self.compare()
        self.last = as_of
        return scoring.attempts

    def store(self) -> None:
        """Update the source's tables to match these."""
        with self.house.superuser.transaction():
            for name, rows in self.tables.items():
                stored = self.stored[name]
                self.house.superuser.execute(
                    sql.SQL("DELETE FROM {} WHERE id = any(%s)").format(sql.Identifier(name)),
                    [[key for key, row in stored.items() if rows.get(key) != row]],
                )
                self.house.insert(
                    name, [row for key, row in rows.items() if stored.get(key) != row]
                )
                self.stored[name] = dict(rows)

    def chosen(self) -> RfmScoringSettings:
        """Return the settings in force."""
        return make_settings(self.rules, {"venues": self.overrides})

    def expect(
        self,
        as_of: datetime,
        chosen: RfmScoringSettings,
        venues: Sequence[UUID] | None = None,
        *,
        force: bool = False,
    ) -> None:
        """Update the oracles with a night."""
        source = oracle.platform_source(
            {name: list(rows.values()) for name, rows in self.tables.items()}
        )
        for venue in source.venues:
            if venues is not None and venue.venue_id not in venues:
                continue
            if not venue.open and venue.venue_id not in self.scores:
                continue
            work = (as_of, chosen.for_unit(venue.venue_id).rules_hash(), not venue.open)
            done = self.done.get(venue.venue_id)
            is_newer = done is not None and done[0] > as_of
            if (done == work or is_newer) and not force:
                continue
            self.done[venue.venue_id] = work
            if venue.open:
                self._expect_scores(source, venue, as_of, work[1])
            else:
                del self.scores[venue.venue_id], self.standing[venue.venue_id]
                self.histories[venue.venue_id].forget()

    def _expect_scores(
        self, source: Source, venue: Venue, as_of: datetime, rules_hash: str
    ) -> None:
        overrides = self.overrides.get(venue.venue_id, {})
        own: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in overrides.items()
        }
        rules = replace(self.rules, **own)
        standing = self.standing.get(venue.venue_id, Standing())
        scores = oracle.score_venue(source, venue, as_of, rules, standing)
        erased = {
            customer.customer_id
            for customer in source.customers
            if customer.erased and customer.tenant_id in (None, venue.tenant_id)
        }
        self.scores[venue.venue_id] = scores
        self.standing[venue.venue_id] = scores.standing
        self.histories[venue.venue_id].note(scores, rules_hash, erased)

    def compare(self) -> None:
        """Compare every column of every view, for each tenant, with the oracles."""
        for tenant_id in TENANTS:
            own = [scores for scores in self.scores.values() if scores.tenant_id == tenant_id]
            history = [row for s in own for row in self.histories[s.venue_id].rows]
            expected = {
                "customer_rfm_scores": oracle.customer_rfm_scores(own),
                "customer_segments": oracle.customer_segments(own),
                "customer_venue_value": oracle.customer_venue_value(own),
                "customer_lifetime_value": oracle.customer_lifetime_value(own),
                "customer_segment_history": history,
                "segment_movements": segment_movements(history),
            }
            for name, columns in (VIEWS | HISTORY_VIEWS).items():
                found = _by_key(columns, self.house.view(name, tenant_id))
                wanted = _by_key(columns, expected[name])
                differing = {
                    key: (found.get(key), wanted.get(key))
                    for key in found.keys() | wanted.keys()
                    if found.get(key) != wanted.get(key)
                }
                assert not differing, f"{name} (found, expected): {differing}"

    def building_again_changes_nothing(self, as_of: datetime) -> None:
        """Check that building a night a second time writes no row."""
        before = self.house.row_versions()
        attempts = self.night(as_of, force=True)
        assert {attempt.outcome for attempt in attempts.values()} <= {"succeeded"}
        assert self.house.row_versions() == before

    def killed_before(self, statement: int) -> Callable[[], psycopg.Connection]:
        """Return an opener whose connection is killed before the statement with this number."""
        numbers = count()
        superuser = self.house.superuser

        class Cursor(psycopg.Cursor[Any]):
            def execute(self, query: Any, *args: Any, **options: Any) -> Any:
                if next(numbers) == statement:
                    superuser.execute(
                        "SELECT pg_terminate_backend(%s, 10000)", [self.connection.info.backend_pid]
                    )
                return super().execute(query, *args, **options)

        def connect_to_be_killed() -> psycopg.Connection:
            connection = connect(self.house.database.address())
            connection.cursor_factory = Cursor
            return connection

        return connect_to_be_killed


def _by_key(columns: Sequence[str], rows: Sequence[Row]) -> dict[tuple[Any, ...], Row]:
    keyed = {tuple(row[column] for column in columns): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def bens_order(at: Platform) -> UUID:
    """Return BEN's order at HALL."""
    (order_id,) = (
        key
        for key, row in at.tables["orders"].items()
        if (row["user_id"], row["event_id"]) == (BEN, HALLS)
    )
    return order_id
