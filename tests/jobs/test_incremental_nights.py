"""A night that builds only what has changed gives what a full build would; history follows."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, pairwise, product
from operator import itemgetter
from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from tests.conftest import Database
from tests.jobs import rfm_oracle as oracle
from tests.jobs.rfm_oracle import Row, Rules, Source, Standing, Venue, VenueScores
from tests.jobs.scoring import (
    HISTORY_VIEWS,
    OTHER_TENANT,
    STATE_TABLES,
    TENANT,
    VIEWS,
    PlatformHouse,
    make_settings,
    uid,
)
from tests.jobs.segment_history_oracle import SegmentHistory, segment_movements

from venue_analytics import harness
from venue_analytics.database.connection import connect
from venue_analytics.harness.history import Attempt
from venue_analytics.jobs.rfm_scoring.rules import rules_of
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings
from venue_analytics.jobs.rfm_scoring.state import VenueState

MICROSECOND, MINUTE, HOUR = timedelta(microseconds=1), timedelta(minutes=1), timedelta(hours=1)
DAY = timedelta(days=1)
FIRST = datetime(2023, 7, 1, 2, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TENANTS = (TENANT, OTHER_TENANT)
HALL, CLUB, STAGE = (uid(name) for name in ("hall", "club", "stage"))
#: Two that are surveyed together, and one that is alone in its tenant.
TENANT_OF = {HALL: TENANT, CLUB: TENANT, STAGE: OTHER_TENANT}
VENUES = tuple(TENANT_OF)
EVENTS = tuple(uid(f"event {number}") for number in range(5))
BUYERS = tuple(uid(f"buyer {number}") for number in range(6))
DIFFERED = "full build (it differed from the source)"


class Platform:
    """The platform's tables, what has been made of them night by night, and what should be."""

    def __init__(self, house: PlatformHouse) -> None:
        self.house = house
        house.clear()
        # hundreds of sequences use these tables in turn
        tables = sql.SQL(", ").join(map(sql.Identifier, (*house.source_tables, *STATE_TABLES)))
        house.superuser.execute(sql.SQL("VACUUM {}").format(tables))
        self.tables: dict[str, dict[UUID, Row]] = {name: {} for name in house.source_tables}
        self.stored: dict[str, dict[UUID, Row]] = {name: {} for name in house.source_tables}
        self.rules = Rules()
        self.overrides: dict[UUID, Mapping[str, Any]] = {}
        #: No venue's turn comes by chance, unless a test says so.
        self.settings: dict[str, Any] = {"full_rebuild_days": 365}
        self.last, self.next = FIRST - DAY, FIRST
        self.scores: dict[UUID, VenueScores] = {}
        self.standing: dict[UUID, Standing] = {}
        self.histories = {venue_id: SegmentHistory() for venue_id in VENUES}
        #: Of each venue: as of when, by which rules, and whether it was gone.
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

    # what happens at the platform

    def put(self, table: str, row_id: UUID, **columns: Any) -> UUID:
        """Insert a row, or change some of its columns."""
        row = self.tables[table].get(row_id, {"id": row_id})
        self.tables[table][row_id] = row | columns
        return row_id

    def register(self, buyer: UUID, tenant_id: UUID = TENANT) -> None:
        """Open an account, or open it again."""
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
        """Place an order; it is written when it is placed, unless something else is said."""
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
        written: datetime | None = None,
    ) -> UUID:
        """Ask for a refund."""
        return self.put(
            "order_refunds",
            uuid5(order_id, f"refund {len(self.tables['order_refunds'])} {at}"),
            tenant_id=self.tables["orders"][order_id]["tenant_id"],
            order_id=order_id,
            refund_amount_cents=cents,
            refund_status=status,
            created_at=at,
            updated_at=written or at,
        )

    def ask_to_erase(self, buyer: UUID, status: str = "PENDING") -> None:
        """Take down a request to be erased, or what has become of it."""
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
        """Delete a row, and the refunds of an order."""
        self.tables[table].pop(row_id, None)
        if table == "orders":
            refunds = self.tables["order_refunds"]
            for refund_id in [key for key, row in refunds.items() if row["order_id"] == row_id]:
                del refunds[refund_id]

    def is_open(self, venue_id: UUID) -> bool:
        """Whether a venue is there to be scored."""
        return bool(self.tables["venues"][venue_id]["status"] == "ACTIVE")

    # what is made of it

    def night(
        self,
        as_of: datetime,
        *,
        venues: list[UUID] | None = None,
        force: bool = False,
        full: bool = False,
        killed_before: int | None = None,
        opener: Callable[[], psycopg.Connection] | None = None,
    ) -> dict[UUID, Attempt]:
        """Score as of a moment; all views and the history must then equal the oracles'."""
        self.store()
        chosen = self.chosen()
        plan = partial(self.house.plan, as_of, chosen, venues=venues, force=force, full=full)
        if killed_before is not None:
            with suppress(psycopg.OperationalError):
                self.house.work(plan(), chosen, opener=self.killed_before(killed_before))
        scoring = self.house.work(plan(), chosen, opener=opener)
        assert scoring.unfinished == []
        self.expect(as_of, chosen, venues, force=force, anew=force or full)
        self.compare()
        self.last = as_of
        return scoring.attempts

    def store(self) -> None:
        """Bring the source's tables to what they are here."""
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
        """Give the settings in force."""
        return make_settings(self.rules, {**self.settings, "venues": self.overrides})

    def expect(
        self,
        as_of: datetime,
        chosen: RfmScoringSettings,
        venues: Sequence[UUID] | None = None,
        *,
        force: bool = False,
        anew: bool = False,
    ) -> None:
        """Have the oracles take a night."""
        source = oracle.platform_source(
            {name: list(rows.values()) for name, rows in self.tables.items()}
        )
        for venue in source.venues:
            if venues is not None and venue.venue_id not in venues:
                continue
            if not venue.open and venue.venue_id not in self.scores:
                continue
            work = (as_of, chosen.for_venue(venue.venue_id).rules_hash(), not venue.open)
            done = self.done.get(venue.venue_id)
            is_newer = done is not None and done[0] > as_of
            if (done == work and not anew) or (is_newer and not force):
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

    def full_build_changes_nothing(self, as_of: datetime) -> None:
        """After a night, a full build as of the same moment writes no row of the state."""
        before = self.house.row_versions()["customer_rfm_state"]
        attempts = self.night(as_of, full=True)
        assert {attempt.mode for attempt in attempts.values()} <= {"full"}
        assert self.house.row_versions()["customer_rfm_state"] == before

    def opener(
        self,
        before: Callable[[psycopg.Connection, int, str], None] = lambda *_: None,
        after: Callable[[str], None] = lambda _: None,
    ) -> Callable[[], psycopg.Connection]:
        """Give the jobs' connections, which tell of each statement: its number and its text."""
        numbers = count()

        class Cursor(psycopg.Cursor[Any]):
            def execute(self, query: Any, *args: Any, **options: Any) -> Any:
                before(self.connection, next(numbers), str(query))
                cursor = super().execute(query, *args, **options)
                after(str(query))
                return cursor

        def connect_and_tell() -> psycopg.Connection:
            connection = connect(self.house.database.address())
            connection.cursor_factory = Cursor
            return connection

        return connect_and_tell

    def killed_before(self, statement: int) -> Callable[[], psycopg.Connection]:
        """Give connections of which the one that comes to that statement is killed."""

        def kill(connection: psycopg.Connection, number: int, _query: str) -> None:
            if number == statement:
                self.house.superuser.execute(
                    "SELECT pg_terminate_backend(%s, 10000)", [connection.info.backend_pid]
                )

        return self.opener(before=kill)


def _by_key(columns: Sequence[str], rows: Sequence[Row]) -> dict[tuple[Any, ...], Row]:
    keyed = {tuple(row[column] for column in columns): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


# any sequence of nights -----------------------------------------------------------------------

#: When the row was last written, as updated_at tells it; None leaves that as it is.
WRITTEN: dict[str, Callable[[Platform], datetime | None]] = {
    "since the last night": lambda at: at.last + (at.next - at.last) / 2,
    "in the overlap": lambda at: at.last - 30 * MINUTE,
    "at the watermark": lambda at: at.last - HOUR,
    "just before the watermark": lambda at: at.last - HOUR - MICROSECOND,
    "long before": lambda at: at.last - 3 * DAY,
    "after as_of": lambda at: at.next + MINUTE,
    "untold": lambda _: None,
}
written = st.sampled_from(["since the last night"] * 5 + list(WRITTEN))
#: Of changes of what is there already.
rewritten = st.sampled_from(["since the last night"] * 3 + ["untold"] * 2 + list(WRITTEN))
numbers = st.integers(0, 30)
buyers = st.integers(0, len(BUYERS) - 1)
events = st.integers(0, len(EVENTS) - 1)
venues = st.integers(0, len(VENUES) - 1)
#: Before the coming night's as_of, or after it; about the thresholds, on each and beside it.
ages = st.builds(
    lambda days, off: days * DAY + off,
    st.sampled_from(
        [0.25, 0.25, 0.5, 1, 1, 2, 7, 29, 30, 31, 60, 61, 90, 91, 180, 181, 400, 0, -1, -3]
    ),
    st.sampled_from([timedelta(0), MICROSECOND, -MICROSECOND]),
)
cents = st.sampled_from([500, 1000, 1001, 1005, 2000, 9999] * 3 + [0, 1, None, -1])
sold = ["CONFIRMED", "COMPLETED", "PAID", "REFUND_INITIATED"]
status = st.sampled_from([*sold, "REFUNDED", "REFUNDED", "PENDING", "CANCELLED"])
currencies = st.sampled_from(["USD"] * 12 + ["EUR", "EUR", None])


@dataclass(frozen=True)
class Buys:
    buyer: int | None
    event: int
    cents: int | None
    status: str
    currency: str | None
    age: timedelta
    written: str

    def do(self, at: Platform) -> None:
        at.buy(
            None if self.buyer is None else BUYERS[self.buyer],
            at.next - self.age,
            self.cents,
            event=EVENTS[self.event],
            status=self.status,
            currency=self.currency,
            written=WRITTEN[self.written](at),
        )


@dataclass(frozen=True)
class Changes:
    """Of a row of orders or refunds, some columns; ages become moments, numbers ids."""

    table: str
    row: int
    column: str
    value: Any
    written: str

    def do(self, at: Platform) -> None:
        row_id = _pick(at.tables[self.table], self.row)
        if row_id is None:
            return
        value = self.value
        if self.column == "user_id":
            value = None if value is None else BUYERS[value]
        elif self.column == "event_id":
            value = EVENTS[value]
        elif self.column == "created_at":
            value = at.next - value
        moment = WRITTEN[self.written](at)
        told = {} if moment is None else {"updated_at": moment}
        at.put(self.table, row_id, **{self.column: value}, **told)


@dataclass(frozen=True)
class Deletes:
    table: str
    row: int

    def do(self, at: Platform) -> None:
        row_id = _pick(at.tables[self.table], self.row)
        if row_id is not None:
            at.lose(self.table, row_id)


@dataclass(frozen=True)
class Refunds:
    order: int
    percent: int
    status: str
    age: timedelta
    written: str

    def do(self, at: Platform) -> None:
        order_id = _pick(at.tables["orders"], self.order)
        if order_id is not None:
            amount = at.tables["orders"][order_id]["total_cents"] or 0
            at.refund(
                order_id,
                at.next - self.age,
                amount * self.percent // 100,
                status=self.status,
                written=WRITTEN[self.written](at),
            )


@dataclass(frozen=True)
class Merges:
    """All of one customer's orders become another's."""

    buyer: int
    into: int
    written: str

    def do(self, at: Platform) -> None:
        moment = WRITTEN[self.written](at)
        told = {} if moment is None else {"updated_at": moment}
        for order_id, row in at.tables["orders"].items():
            if row["user_id"] == BUYERS[self.buyer]:
                at.put("orders", order_id, user_id=BUYERS[self.into], **told)


@dataclass(frozen=True)
class MovesEvent:
    event: int
    venue: int

    def do(self, at: Platform) -> None:
        venue_id = VENUES[self.venue]
        at.put("events", EVENTS[self.event], venue_id=venue_id, tenant_id=TENANT_OF[venue_id])


@dataclass(frozen=True)
class ChangesAccount:
    buyer: int
    what: str

    def do(self, at: Platform) -> None:
        buyer = BUYERS[self.buyer]
        if self.what == "opened here":
            at.register(buyer)
        elif self.what == "opened elsewhere":
            at.register(buyer, OTHER_TENANT)
        elif self.what == "deleted" and buyer in at.tables["users"]:
            at.put("users", buyer, deleted_at=at.last)
        elif self.what == "gone":
            at.lose("users", buyer)
        elif self.what == "to be erased":
            at.ask_to_erase(buyer)
        elif self.what == "not to be erased":
            at.ask_to_erase(buyer, "REJECTED")


@dataclass(frozen=True)
class ChangesRules:
    """For all venues, or for one."""

    rules: Rules
    venue: int | None

    def do(self, at: Platform) -> None:
        if self.venue is None:
            at.rules = self.rules
            return
        own, common = asdict(self.rules), asdict(at.rules)
        at.overrides[VENUES[self.venue]] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in own.items()
            if value != common[name]
        }


@dataclass(frozen=True)
class OpensOrCloses:
    venue: int

    def do(self, at: Platform) -> None:
        venue_id = VENUES[self.venue]
        at.put("venues", venue_id, status="CLOSED" if at.is_open(venue_id) else "ACTIVE")


#: What every sequence begins with, so that what is done then meets purchases.
ALWAYS = tuple(
    Buys(
        buyer=number % len(BUYERS),
        event=number * 3 % len(EVENTS),
        cents=500 + number * number % 7 * 250,
        status="CONFIRMED",
        currency="USD",
        age=(1 + number * 11 % 100) * DAY,
        written="untold",
    )
    for number in range(24)
)


Deed = (
    Buys
    | Changes
    | Deletes
    | Refunds
    | Merges
    | MovesEvent
    | ChangesAccount
    | ChangesRules
    | OpensOrCloses
)


@dataclass(frozen=True)
class Night:
    """What happens before a night, how long after the last it is, and how it is asked for."""

    deeds: list[Deed]
    after: timedelta
    asked: str
    killed_before: int | None = None

    def do(self, at: Platform) -> dict[UUID, Attempt]:
        ask = ASKED[self.asked]
        at.next = ask.as_of(at.last, self.after)
        for deed in self.deeds:
            deed.do(at)
        return at.night(
            at.next,
            # only open ones may be asked for; none is all
            venues=[v for v in ask.venues if at.is_open(v)] or None,
            force=ask.force,
            full=ask.full,
            killed_before=self.killed_before,
        )


@dataclass(frozen=True)
class Ask:
    """How a night is asked for."""

    as_of: Callable[[datetime, timedelta], datetime] = lambda last, after: last + after
    venues: tuple[UUID, ...] = ()
    force: bool = False
    full: bool = False


ASKED = {
    "by the schedule": Ask(),
    "in full": Ask(full=True),
    "of one venue": Ask(venues=(HALL,)),
    "of two venues": Ask(venues=(HALL, STAGE)),
    "again": Ask(as_of=lambda last, _: last),
    "again, in full": Ask(as_of=lambda last, _: last, full=True),
    "as of an older moment": Ask(as_of=lambda last, after: last - after, force=True),
}


def _pick(rows: Mapping[UUID, Row], number: int) -> UUID | None:
    return list(rows)[number % len(rows)] if rows else None


some_rules = st.just(Rules()) | st.builds(
    Rules,
    recency_days=st.sampled_from([(30, 60, 90, 180), (0, 1, 31, 400)]),
    frequency_purchases=st.sampled_from([(10, 7, 4, 2), (5, 4, 3, 2)]),
    monetary_percent=st.sampled_from([(80, 60, 40, 20), (100, 67, 34, 1)]),
    lookback_days=st.sampled_from([None, 30, 90]),
    vip_min_total=st.sampled_from([12, 10]),
    at_risk_max_days=st.sampled_from([180, 30]),
    high_risk_after_days=st.sampled_from([180, 90]),
    high_risk_min_purchases=st.sampled_from([3, 1]),
    currency=st.sampled_from([None, None, "EUR"]),
    rule_set=st.sampled_from(["audited", "standard"]),
)
buys = st.builds(
    Buys,
    buyer=st.sampled_from([*range(len(BUYERS))] * 3 + [None]),
    event=events,
    cents=cents,
    status=st.sampled_from([*sold * 4, "REFUNDED", "PENDING", "CANCELLED"]),
    currency=currencies,
    age=ages,
    written=written,
)
changes = st.one_of(
    [
        st.builds(Changes, st.just("orders"), numbers, st.just(column), values, rewritten)
        for column, values in {
            "status": status,
            "total_cents": cents,
            "event_id": events,
            "user_id": buyers,
            "currency": currencies,
            "created_at": ages,
        }.items()
    ]
)
refund_changes = st.one_of(
    [
        st.builds(Changes, st.just("order_refunds"), numbers, st.just(column), values, rewritten)
        for column, values in {
            "refund_status": st.sampled_from(["COMPLETED", "FAILED", "PENDING"]),
            "refund_amount_cents": st.sampled_from([0, 1, 500, 1000, 20_000]),
            "created_at": ages,
        }.items()
    ]
)
refunds = st.builds(
    Refunds,
    order=numbers,
    percent=st.sampled_from([100, 100, 50, 1, 200]),
    status=st.sampled_from(["COMPLETED", "COMPLETED", "COMPLETED", "PENDING", "FAILED"]),
    age=ages,
    written=written,
)
others = st.one_of(
    refund_changes,
    st.builds(Deletes, st.sampled_from(["orders", "order_refunds"]), numbers),
    st.builds(Merges, buyers, buyers, rewritten),
    st.builds(MovesEvent, events, venues),
    st.builds(ChangesRules, some_rules, venues | st.none()),
    st.builds(OpensOrCloses, venues),
)
accounts = st.builds(
    ChangesAccount,
    buyers,
    st.sampled_from(
        ["opened here", "opened elsewhere", "deleted", "gone", "to be erased", "not to be erased"]
    ),
)
deeds = st.sampled_from([buys] * 3 + [changes] * 3 + [refunds, refunds, accounts, others]).flatmap(
    lambda kind: kind
)
nights = st.builds(
    Night,
    deeds=st.lists(deeds, min_size=1, max_size=5),
    after=st.sampled_from([HOUR, DAY, DAY, DAY, DAY + HOUR, 7 * DAY, 31 * DAY]),
    asked=st.sampled_from(["by the schedule"] * 20 + list(ASKED)),
    killed_before=st.sampled_from([None] * 15 + [3, 8, 15, 22, 30, 38]),
)


def test_any_sequence_of_nights_equals_full_builds_and_the_oracles(
    platform_house: PlatformHouse,
) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        rules=some_rules,
        overrides=st.dictionaries(st.sampled_from(VENUES), some_rules, max_size=2),
        overlap_minutes=st.sampled_from([60, 60, 60, 0]),
        full_rebuild_days=st.sampled_from([365, 365, 365, 7]),
        first=st.lists(buys, max_size=12),
        then=st.lists(nights, min_size=4, max_size=7),
    )
    def check(
        rules: Rules,
        overrides: dict[UUID, Rules],
        overlap_minutes: int,
        full_rebuild_days: int,
        first: list[Deed],
        then: list[Night],
    ) -> None:
        at = Platform(platform_house)
        at.settings = {
            "overlap_minutes": overlap_minutes,
            "full_rebuild_days": full_rebuild_days,
        }
        of_venues = [ChangesRules(own, VENUES.index(venue)) for venue, own in overrides.items()]
        beginning = [ChangesRules(rules, None), *of_venues, *ALWAYS, *first]
        for night in [Night(beginning, DAY, "by the schedule"), *then]:
            seen.update(_kinds(night.do(at)))
        # of all venues: the last one may have been of some
        end = max([at.last, *(as_of for as_of, _, _ in at.done.values())]) + DAY
        seen.update(_kinds(at.night(end)))
        at.full_build_changes_nothing(end)

    check()
    # else it would have proved little
    assert seen["incremental"] > sum(seen[kind] for kind in seen if kind.startswith("full build"))
    assert seen[DIFFERED] >= 10
    assert min(seen["surveyed together"], seen["surveyed alone"]) >= 30


def _kinds(attempts: Mapping[UUID, Attempt]) -> list[str]:
    """Say of each attempt what it was, and of incremental ones whether they came together."""
    incremental = Counter(TENANT_OF[v] for v, a in attempts.items() if a.mode == "incremental")
    return [
        *(str(attempt.reason or attempt.mode) for attempt in attempts.values()),
        *("surveyed together" if count > 1 else "surveyed alone" for count in incremental.values()),
    ]


# one thing at a time --------------------------------------------------------------------------

ANNA, BEN, CLEO, DAN = BUYERS[:4]
HALLS, CLUBS = EVENTS[0], EVENTS[2]


@pytest.fixture
def at(platform_house: PlatformHouse) -> Platform:
    """Two venues that have sold to four customers, and a third that has to one; scored once."""
    platform = Platform(platform_house)
    for buyer, days, amount in ((ANNA, 3, 4000), (BEN, 10, 3000), (CLEO, 15, 2000), (DAN, 20, 10)):
        for event in (HALLS, CLUBS):
            platform.buy(buyer, FIRST - days * DAY, amount, event=event)
    platform.buy(ANNA, FIRST - 3 * DAY, event=EVENTS[4])
    platform.night(FIRST)
    return platform


def history(at: Platform, tenant_id: UUID = TENANT) -> list[tuple[Any, ...]]:
    """Give venue, customer, segments and kind of each row of the history."""
    columns = ("venue_id", "customer_id", "previous_segment", "segment", "kind")
    rows = at.house.view("customer_segment_history", tenant_id)
    return [tuple(row[column] for column in columns) for row in rows]


def modes(attempts: Mapping[UUID, Attempt]) -> dict[UUID, str | None]:
    """Give how each venue was built."""
    return {venue_id: attempt.mode for venue_id, attempt in attempts.items()}


def test_a_quiet_night_writes_the_as_of_of_each_venue_and_its_summaries(at: Platform) -> None:
    before = at.house.row_versions()
    assert set(modes(at.night(FIRST + DAY)).values()) == {"incremental"}
    after = at.house.row_versions()
    for table in ("customer_rfm_state", "customer_segment_change", "venue_rfm_rules"):
        assert after[table] == before[table], table
    assert before["customer_rfm_state"]
    # a row each, and of each venue one a segment: no row twice, and none more
    assert len(after["venue_rfm_state"]) == len(before["venue_rfm_state"]) == len(VENUES)
    assert len(after["customer_segments"]) == len(before["customer_segments"])
    columns = [
        row[2:]
        for row in at.house.superuser.execute(
            "SELECT xmin, ctid, venue_id, as_of, full_as_of FROM venue_rfm_state"
        )
    ]
    assert {row[1:] for row in columns} == {(FIRST + DAY, FIRST)}


def bens_order(at: Platform) -> UUID:
    """Give what BEN bought at HALL."""
    (order_id,) = (
        key
        for key, row in at.tables["orders"].items()
        if (row["user_id"], row["event_id"]) == (BEN, HALLS)
    )
    return order_id


def ordered_ahead(at: Platform) -> None:
    at.buy(BEN, at.last + 3 * DAY, written=at.last - 5 * DAY)


def refunded_ahead(at: Platform) -> None:
    at.refund(bens_order(at), at.last + 3 * DAY, 1000, written=at.last - 5 * DAY)


def refund_that_goes_through_late(at: Platform) -> None:
    pending = at.refund(bens_order(at), at.last - 5 * DAY, 1000, status="PENDING")
    at.night(at.last + DAY)
    at.put("order_refunds", pending, refund_status="COMPLETED", updated_at=at.last + HOUR)


def refund_that_has_failed(at: Platform) -> None:
    refund = at.refund(bens_order(at), at.last + HOUR, 1000)
    at.night(at.last + DAY)
    at.put("order_refunds", refund, refund_status="FAILED", updated_at=at.last + HOUR)
    # the platform touches the order as well: of what is no refund any more, nothing is left to see
    at.put("orders", bens_order(at), updated_at=at.last + HOUR)


def cancelled(at: Platform) -> None:
    at.put("orders", bens_order(at), status="CANCELLED", updated_at=at.last + HOUR)


def repriced(at: Platform) -> None:
    at.put("orders", bens_order(at), total_cents=1, updated_at=at.last + HOUR)


def refunded_in_whole_by_its_status(at: Platform) -> None:
    at.put("orders", bens_order(at), status="REFUNDED", updated_at=at.last + HOUR)


def account_deleted(at: Platform) -> None:
    at.put("users", BEN, deleted_at=LONG_AGO)


def account_gone(at: Platform) -> None:
    at.lose("users", BEN)


def account_opened_late(at: Platform) -> None:
    at.lose("users", BEN)
    at.night(at.last + DAY)
    at.register(BEN)


def erasure_asked_for(at: Platform) -> None:
    at.ask_to_erase(BEN)


@pytest.mark.parametrize(
    "happens",
    [
        ordered_ahead,
        refunded_ahead,
        refund_that_goes_through_late,
        refund_that_has_failed,
        cancelled,
        repriced,
        refunded_in_whole_by_its_status,
        account_deleted,
        account_gone,
        account_opened_late,
        erasure_asked_for,
    ],
    ids=lambda happens: happens.__name__.replace("_", " "),
)
def test_what_leaves_a_trace_is_found_without_the_comparison(
    at: Platform, happens: Callable[[Platform], None]
) -> None:
    happens(at)
    for _ in range(4):
        attempts = at.night(at.last + DAY)
        assert (attempts[HALL].mode, attempts[HALL].reason) == ("incremental", None)
    bens = [row for row in at.house.view("customer_rfm_scores") if row["customer_id"] == BEN]
    assert [row["total_spent"] for row in bens if row["venue_id"] == HALL] != [30] or (
        happens in (refund_that_has_failed, account_opened_late)
    )


def test_what_leaves_the_look_back_is_found_without_the_comparison(at: Platform) -> None:
    at.rules = Rules(lookback_days=12)
    at.night(FIRST + DAY)
    for _ in range(3):
        attempts = at.night(at.last + DAY)
        assert (attempts[HALL].mode, attempts[HALL].reason) == ("incremental", None)
    assert BEN not in {row["customer_id"] for row in at.house.view("customer_rfm_scores")}


def place_in_a_transaction_that_commits_after_the_night(at: Platform, minutes: int) -> None:
    """Order so many minutes before the night's as_of; commit once the night has ended."""
    order_id = at.buy(DAN, at.last + DAY - minutes * MINUTE, 9000)
    row = at.tables["orders"].pop(order_id)
    session = at.house.database.superuser()
    with session, session.transaction():
        session.execute(
            "INSERT INTO orders SELECT * FROM jsonb_populate_record(NULL::orders, %s)",
            [json.dumps(row, default=str)],
        )
        at.night(at.last + DAY)
    at.tables["orders"][order_id] = at.stored["orders"][order_id] = row


def test_an_order_that_commits_within_the_overlap_is_found_by_its_updated_at(
    at: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    place_in_a_transaction_that_commits_after_the_night(at, minutes=60)
    attempts = at.night(at.last + DAY)
    assert (attempts[HALL].mode, attempts[HALL].reason) == ("incremental", None)
    assert "differed" not in caplog.text


def test_an_order_that_commits_later_than_the_overlap_is_found_by_the_comparison(
    at: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    place_in_a_transaction_that_commits_after_the_night(at, minutes=61)
    attempts = at.night(at.last + DAY)
    assert (attempts[HALL].mode, attempts[HALL].reason) == ("full", DIFFERED)
    assert attempts[CLUB].mode == "incremental"
    (warning,) = [record for record in caplog.records if "differed" in record.message]
    assert warning.levelno == logging.WARNING
    assert warning.message.startswith("venue 0: its scores differed from the source")


def test_what_commits_between_the_survey_and_a_venues_turn_is_no_difference(
    at: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    at.buy(ANNA, FIRST + HOUR, 5000)

    def buy_once_more(query: str) -> None:
        if "remembers_erased" in query and len(at.tables["orders"]) == orders:
            at.buy(ANNA, FIRST + 2 * HOUR, 5000)
            at.store()

    orders = len(at.tables["orders"])
    attempts = at.night(FIRST + DAY, opener=at.opener(after=buy_once_more))
    assert len(at.tables["orders"]) == orders + 1
    assert (attempts[HALL].mode, attempts[HALL].reason) == ("incremental", None)
    assert "differed" not in caplog.text


def test_what_commits_between_the_survey_of_a_venue_and_its_scoring_is_seen_by_neither(
    at: Platform,
) -> None:
    at.buy(ANNA, FIRST + HOUR, 5000, event=EVENTS[4])
    at.store()
    late: list[UUID] = []

    def buy_once(query: str) -> None:
        if "remembers_erased" in query and not late:
            late.append(at.buy(ANNA, FIRST + 2 * HOUR, 5000, event=EVENTS[4]))
            at.store()

    chosen = at.chosen()
    run = at.house.plan(FIRST + DAY, chosen, venues=[STAGE])
    night = at.house.work(run, chosen, opener=at.opener(after=buy_once))
    assert late
    # else the sums would differ, and all would be built anew
    assert [(a.mode, a.reason) for a in night.attempts.values()] == [("incremental", None)]


def test_an_event_that_moved_takes_its_purchases_along(
    at: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    at.buy(ANNA, FIRST - DAY, 5000, event=EVENTS[1], written=FIRST - DAY)
    at.night(FIRST + DAY)
    MovesEvent(event=1, venue=VENUES.index(CLUB)).do(at)
    caplog.clear()
    attempts = at.night(FIRST + 2 * DAY)
    assert {attempts[HALL].reason, attempts[CLUB].reason} == {DIFFERED}
    assert [r.message[:7] for r in caplog.records if "differed" in r.message] == [
        "venue 0",
        "venue 1",
    ]
    spent = {
        row["venue_id"]: row["total_spent"]
        for row in at.house.view("customer_rfm_scores")
        if row["customer_id"] == ANNA
    }
    assert spent == {HALL: 40, CLUB: 90}


# The one who had the orders is named by none of them any more: the comparison must help.
@pytest.mark.parametrize("told", ["untold", "since the last night"])
def test_a_customer_merged_into_another_is_gone_and_the_other_has_it_all(
    at: Platform, told: str
) -> None:
    at.next = FIRST + DAY
    Merges(buyer=1, into=0, written=told).do(at)
    attempts = at.night(at.next)
    assert {attempts[HALL].reason, attempts[CLUB].reason} == {DIFFERED}
    rows = {row["customer_id"]: row for row in at.house.view("customer_lifetime_value")}
    assert BEN not in rows
    assert rows[ANNA]["clv"] == 2 * (40 + 30)


def test_every_venue_has_its_turn_once_in_seven_nights(at: Platform) -> None:
    at.settings["full_rebuild_days"] = 7
    full: Counter[UUID] = Counter()
    for night in range(1, 15):
        attempts = at.night(FIRST + night * DAY)
        for venue_id, attempt in attempts.items():
            if attempt.mode == "full":
                assert attempt.reason == "full build (its turn every 7 days)"
                full[venue_id] += 1
    assert full == dict.fromkeys(VENUES, 2)


def test_turns_are_spread_over_the_week_and_a_week_apart() -> None:
    chosen = make_settings()
    nights = [FIRST + number * DAY for number in range(28)]
    turns: Counter[int] = Counter()
    for number in range(700):
        venue = harness.Venue(uuid5(TENANT, str(number)), TENANT, "a venue")
        state = VenueState(
            venue.venue_id, FIRST, FIRST, "EUR", "EUR", chosen.rules_hash(), None, None, True
        )
        found = []
        for before, night in pairwise(nights):
            state = replace(state, as_of=before)
            if state.why_full(venue, chosen, night, full=False) is not None:
                found.append(night)
                state = replace(state, full_as_of=night)
        assert [after - before for before, after in pairwise(found)] == [7 * DAY] * (len(found) - 1)
        assert len(found) in (3, 4)
        turns[found[0].weekday()] += 1
    # 100 each, by chance; five standard deviations are 46
    assert sorted(turns) == list(range(7))
    assert all(54 <= count <= 146 for count in turns.values())


def test_a_change_of_rules_is_noted_and_is_no_movement(at: Platform) -> None:
    at.rules = Rules(rule_set="standard")
    at.night(FIRST + DAY)
    noted = history(at)
    assert {kind for *_, kind in noted} == {"rules"}
    # four customers of two venues: nobody's segment has kept its name
    assert len(noted) == 8
    assert at.house.view("segment_movements") == []
    # the next night's movements are movements again
    at.buy(DAN, FIRST + DAY + HOUR, 9000)
    at.night(FIRST + 2 * DAY)
    assert {row["moved_at"] for row in at.house.view("segment_movements")} == {FIRST + 2 * DAY}


def test_rules_under_which_nobody_moves_leave_no_row(at: Platform) -> None:
    at.rules = Rules(at_risk_max_days=200)
    assert at.night(FIRST + DAY)[HALL].reason == "full build (other rules)"
    assert history(at) == []


def test_rules_taken_back_the_same_night_leave_no_trace(at: Platform) -> None:
    for rules in (Rules(rule_set="standard"), Rules()):
        at.rules = rules
        at.night(FIRST + DAY)
    assert history(at) == []
    at.buy(DAN, FIRST + DAY + HOUR, 9000)
    at.night(FIRST + 2 * DAY)
    assert {kind for *_, kind in history(at)} == {"movement"}


def test_a_venue_is_built_in_full_until_it_sells(
    new_database: Callable[[str | None], Database], redis_client: redis.Redis
) -> None:
    with PlatformHouse(new_database("platform"), redis_client) as house:
        at = Platform(house)
        at.store()
        assert house.run(FIRST).attempts[HALL].reason == "full build (first)"
        assert house.run(FIRST + DAY).attempts[HALL].reason == "full build (no sale so far)"
        at.buy(ANNA, FIRST + DAY + HOUR)
        at.store()
        assert house.run(FIRST + 2 * DAY).attempts[HALL].reason == "full build (no sale so far)"
        assert house.run(FIRST + 3 * DAY).attempts[HALL].mode == "incremental"


def test_another_currency_of_the_venue_is_no_movement(
    new_database: Callable[[str | None], Database], redis_client: redis.Redis
) -> None:
    with PlatformHouse(new_database("platform"), redis_client) as house:
        at = Platform(house)
        for currency in ("EUR", "USD", "USD", "USD"):
            at.buy(ANNA, FIRST - DAY, currency=currency)
        at.store()
        ((view,),) = house.superuser.execute("SELECT pg_get_viewdef('source.venues')").fetchall()
        reasons = []
        for as_of, currency in ((FIRST, "EUR"), (FIRST + DAY, "USD")):
            # an adapter whose platform says what its venues sell in
            told = view.replace("NULL::text AS currency", f"'{currency}'::text AS currency")
            house.superuser.execute(
                f"CREATE OR REPLACE VIEW source.venues WITH (security_invoker) AS {told}"
            )
            reasons.append(house.run(as_of).attempts[HALL].reason)
        assert reasons == ["full build (first)", "full build (another currency)"]
        (row,) = house.view("customer_segment_history")
        # 5 + 1 + 1 points by one purchase in euros, 5 + 2 + 1 by three in dollars
        assert (row["previous_segment"], row["segment"]) == ("At-Risk", "Regular")
        assert row["kind"] == "rules"
        assert house.view("segment_movements") == []


def test_the_first_build_of_a_venue_writes_no_history(at: Platform) -> None:
    assert at.house.view("customer_rfm_scores")
    assert history(at) == []
    at.buy(ANNA, FIRST - DAY, event=EVENTS[4])
    OpensOrCloses(VENUES.index(CLUB)).do(at)
    at.night(FIRST + DAY)
    OpensOrCloses(VENUES.index(CLUB)).do(at)
    assert at.night(FIRST + 2 * DAY)[CLUB].reason == "full build (first)"
    assert history(at) == []


def test_a_forced_older_night_deletes_the_later_rows_of_that_venue_alone(at: Platform) -> None:
    for night in (1, 2, 3):
        for event in (HALLS, CLUBS):
            at.buy(DAN, FIRST + night * DAY - HOUR, 2000, event=event)
            at.buy(CLEO, FIRST + night * DAY - HOUR, 2000, event=event)
        at.night(FIRST + night * DAY)
    before = at.house.view("customer_segment_history")
    nights = {row["changed_at"] for row in before if row["venue_id"] == HALL}
    assert max(nights) > FIRST + 2 * DAY - HOUR
    attempts = at.night(FIRST + DAY + HOUR, venues=[HALL], force=True)
    assert attempts[HALL].reason == "full build (an older night)"
    after = at.house.view("customer_segment_history")
    assert [row for row in after if row["venue_id"] == CLUB] == [
        row for row in before if row["venue_id"] == CLUB
    ]
    assert [row for row in after if row["venue_id"] == HALL] == [
        row for row in before if row["venue_id"] == HALL and row["changed_at"] <= at.last
    ]


def test_a_forced_older_night_puts_its_rules_in_the_place_of_later_ones(at: Platform) -> None:
    at.night(FIRST + DAY)
    at.rules = Rules(rule_set="standard")
    at.night(FIRST + 3 * DAY)
    at.night(FIRST + 2 * DAY, force=True)
    assert {row["changed_at"] for row in at.house.view("customer_segment_history")} == {
        FIRST + 2 * DAY
    }
    in_force = at.house.superuser.execute(
        "SELECT since, rules ->> 'rule_set' FROM venue_rfm_rules WHERE venue_id = %s ORDER BY 1",
        [HALL],
    ).fetchall()
    assert in_force == [(FIRST, "audited"), (FIRST + 2 * DAY, "standard")]


@pytest.mark.parametrize(
    ("asked", "outcome", "reason"),
    [
        ({}, "skipped", "already done"),
        ({"full": True}, "succeeded", "full build (asked for)"),
        ({"force": True}, "succeeded", "full build (the same night again)"),
    ],
    ids=["by the schedule", "in full", "forced"],
)
def test_the_same_night_by_two_runs_writes_history_once(
    at: Platform, asked: dict[str, Any], outcome: str, reason: str
) -> None:
    at.buy(DAN, FIRST + HOUR, 9000)
    at.night(FIRST + DAY)
    before = history(at)
    assert before
    attempts = at.night(FIRST + DAY, **asked)
    assert {(a.outcome, a.reason) for a in attempts.values()} == {(outcome, reason)}
    assert history(at) == before


def test_a_customer_in_no_segment_any_more_has_moved_to_none(at: Platform) -> None:
    at.refund(bens_order(at), FIRST + HOUR, 3000)
    at.put("users", CLEO, deleted_at=FIRST + HOUR)
    assert modes(at.night(FIRST + DAY))[HALL] == "incremental"
    left = {(venue, who) for venue, who, _, segment, _ in history(at) if segment is None}
    assert left == {(HALL, BEN), (HALL, CLEO), (CLUB, CLEO)}


def test_one_who_has_left_has_spent_nothing_also_when_the_night_is_built_again(
    at: Platform,
) -> None:
    for order_id, row in list(at.tables["orders"].items()):
        if row["user_id"] == BEN:
            at.lose("orders", order_id)
    for full in (False, True):
        at.night(FIRST + DAY, full=full)
        spent = [
            row["total_spent"]
            for row in at.house.view("customer_segment_history")
            if row["customer_id"] == BEN
        ]
        assert spent == [0, 0]


def comes_back_in_an_older_night(at: Platform) -> datetime:
    at.night(FIRST + DAY)
    at.refund(bens_order(at), FIRST + DAY + HOUR, 3000)
    at.night(FIRST + 2 * DAY)
    return FIRST + DAY + MINUTE


def comes_back_with_the_rules(at: Platform) -> datetime:
    at.rules = Rules(lookback_days=5)
    at.night(FIRST + DAY)
    at.rules = Rules()
    return FIRST + DAY


def comes_back_with_the_money(at: Platform) -> datetime:
    refund = at.refund(bens_order(at), FIRST + HOUR, 3000)
    at.night(FIRST + DAY)
    at.put("order_refunds", refund, refund_status="FAILED")
    return FIRST + DAY


@pytest.mark.parametrize(
    "comes_back",
    [comes_back_in_an_older_night, comes_back_with_the_rules, comes_back_with_the_money],
    ids=lambda comes_back: comes_back.__name__.replace("_", " "),
)
def test_one_who_had_left_comes_back_when_a_night_is_done_again(
    at: Platform, comes_back: Callable[[Platform], datetime]
) -> None:
    as_of = comes_back(at)
    assert (HALL, BEN) not in scored_pairs(at)
    at.night(as_of, force=True)
    assert (HALL, BEN) in scored_pairs(at)
    assert (HALL, BEN) not in {(venue, who) for venue, who, *_ in history(at)}


def scored_pairs(at: Platform) -> set[tuple[UUID, UUID]]:
    return {(row["venue_id"], row["customer_id"]) for row in at.house.view("customer_rfm_scores")}


def test_nights_that_are_forced_anew_in_any_order_leave_history_chained(at: Platform) -> None:
    for number in range(1, 6):
        for event in (HALLS, CLUBS):
            at.buy(BUYERS[number % 3 + 1], FIRST + number * DAY - HOUR, 9000 * number, event=event)
        at.night(FIRST + number * DAY)
    changes = Counter((venue, who) for venue, who, *_ in history(at))
    assert max(changes.values()) > 1
    for number, rule_set in ((4, "standard"), (2, "audited"), (3, "standard"), (1, "audited")):
        at.rules = Rules(rule_set=rule_set)
        at.night(FIRST + number * DAY, force=True)
        assert_chained(at)
    for number in (2, 3):
        at.night(FIRST + number * DAY)
        assert_chained(at)


def assert_chained(at: Platform) -> None:
    """Each change begins with what the one before ended with, and the last with what stands."""
    changes: dict[tuple[UUID, UUID], list[dict[str, Any]]] = {}
    for row in sorted(at.house.view("customer_segment_history"), key=itemgetter("changed_at")):
        changes.setdefault((row["venue_id"], row["customer_id"]), []).append(row)
    shown = {
        (row["venue_id"], row["customer_id"]): row["segment"]
        for row in at.house.view("customer_rfm_scores")
    }
    for pair, rows in changes.items():
        ended = [row["segment"] for row in rows]
        assert [row["previous_segment"] for row in rows[1:]] == ended[:-1]
        assert ended[-1] == shown.get(pair)


def test_another_currency_leaves_no_sum_of_the_one_before(at: Platform) -> None:
    at.buy(ANNA, FIRST - DAY, 700, currency="EUR")
    at.night(FIRST + HOUR)
    at.rules = Rules(currency="EUR")
    at.night(FIRST + DAY)
    rows = at.house.view("customer_segment_history")
    spent = {row["customer_id"]: row["total_spent"] for row in rows if row["venue_id"] == HALL}
    # 7 euros, where it was 40 dollars; the others have none
    assert spent == {ANNA: 7, BEN: 0, CLEO: 0, DAN: 0}


def test_what_is_left_out_is_counted_as_a_full_build_does(at: Platform) -> None:
    at.rules = Rules(lookback_days=12)
    # one guest leaves the look-back tonight, one stays; a sale that was cancelled has a refund
    at.buy(None, FIRST - 11 * DAY - HOUR, 100)
    at.buy(None, FIRST - 5 * DAY, 100)
    cancelled = at.buy(ANNA, FIRST - 5 * DAY, 100)
    at.refund(cancelled, FIRST - 4 * DAY, 100)
    at.put("orders", cancelled, status="CANCELLED")
    at.night(FIRST + HOUR)
    at.night(FIRST + 2 * HOUR)
    night = FIRST + 2 * HOUR + DAY
    told = [at.night(night, full=full)[HALL] for full in (False, True)]
    assert [attempt.mode for attempt in told] == ["incremental", "full"]
    (counted,) = {(attempt.rows_read, str(attempt.left_out)) for attempt in told}
    assert counted[1] == "{'guest': 1}"


def test_what_a_night_wrote_before_it_differed_is_counted_too(at: Platform) -> None:
    at.buy(ANNA, FIRST + HOUR, 5000)
    at.lose("orders", bens_order(at))
    attempt = at.night(FIRST + DAY)[HALL]
    assert (attempt.reason, attempt.rows_written, attempt.rows_removed) == (DIFFERED, 1, 1)


def test_two_equal_purchases_of_one_moment_do_not_hide_each_other(at: Platform) -> None:
    twins = [at.buy(ANNA, FIRST - 2 * DAY, 700) for _ in range(2)]
    at.night(FIRST + DAY)
    for order_id in twins:
        at.lose("orders", order_id)
    assert at.night(FIRST + 2 * DAY)[HALL].reason == DIFFERED


def test_no_trace_of_an_erased_customer_stays(at: Platform) -> None:
    at.buy(DAN, FIRST + HOUR, 9000)
    at.put("users", CLEO, deleted_at=FIRST + HOUR)
    at.night(FIRST + DAY)
    assert {DAN, CLEO} <= {who for _, who, *_ in history(at)}
    assert {"customer_rfm_state", "customer_segment_change"} <= tables_that_name(at, DAN)
    for who in (DAN, CLEO):
        at.ask_to_erase(who)
    assert modes(at.night(FIRST + 2 * DAY))[HALL] == "incremental"
    for who in (DAN, CLEO):
        assert tables_that_name(at, who) == set()


def test_no_trace_of_a_customer_stays_who_had_left_before_being_erased(at: Platform) -> None:
    # without purchases nothing but history names CLEO, and no row of the state is touched
    for order_id, row in list(at.tables["orders"].items()):
        if row["user_id"] == CLEO:
            at.lose("orders", order_id)
    at.night(FIRST + DAY)
    assert tables_that_name(at, CLEO) == {"customer_segment_change"}
    at.ask_to_erase(CLEO)
    assert modes(at.night(FIRST + 2 * DAY))[HALL] == "incremental"
    assert tables_that_name(at, CLEO) == set()


def tables_that_name(at: Platform, customer_id: UUID) -> set[str]:
    """Find our tables that hold a customer's id anywhere."""
    superuser = at.house.superuser
    tables = superuser.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'jobs')"
    ).fetchall()
    return {
        name
        for schema, name in tables
        if name not in at.house.source_tables
        and superuser.execute(
            sql.SQL("SELECT FROM {} AS t WHERE t::text LIKE %s LIMIT 1").format(
                sql.Identifier(schema, name)
            ),
            [f"%{customer_id}%"],
        ).rowcount
    }


# the two rule sets ----------------------------------------------------------------------------

SCORES = (1, 2, 3, 4, 5)


@pytest.mark.parametrize("rule_set", ["audited", "standard"])
def test_each_triple_of_scores_has_one_segment(rule_set: str) -> None:
    rules = Rules(rule_set=rule_set)
    stated = rules_of(make_settings(rules))
    assert stated.segments == rules.segments
    for r, f, m in product(SCORES, SCORES, SCORES):
        for days in (rules.at_risk_max_days, rules.at_risk_max_days + 1):
            is_long_gone = days > stated.long_gone_after_days
            found = stated.segment(r, f, m, is_long_gone)
            assert found == oracle.segment_of(r, f, m, days, rules), (r, f, m, days)


#: Two numbers of days since the last purchase for each recency score.
DAYS = {5: (10, 25), 4: (35, 55), 3: (65, 85), 2: (95, 150), 1: (200, 400)}
PURCHASES = {5: 10, 4: 7, 3: 4, 2: 2, 1: 1}


def test_the_sql_gives_each_triple_its_segment(platform_house: PlatformHouse) -> None:
    at = Platform(platform_house)
    for (r, alike), f, m in product(product(SCORES, (0, 1)), SCORES, SCORES):
        buyer = uid(f"customer {r} {alike} {f} {m}")
        at.register(buyer)
        for number in range(PURCHASES[f]):
            # a fifth of all customers spend as much as another: each fifth is a monetary score
            at.buy(buyer, FIRST - (DAYS[r][alike] + number) * DAY, m * 1400 // PURCHASES[f])
    at.rules = Rules(rule_set="standard")
    at.night(FIRST)
    # the first number of days of each recency score in turn, so that the second is beyond it
    for at_risk_max_days, _ in DAYS.values():
        at.rules = Rules(at_risk_max_days=at_risk_max_days)
        at.night(FIRST)
    found = Counter(
        (row["recency_score"], row["frequency_score"], row["monetary_score"])
        for row in at.house.view("customer_rfm_scores")
    )
    assert found == dict.fromkeys(product(SCORES, SCORES, SCORES), 2)
