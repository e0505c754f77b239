"""Hypothesis strategies for what may happen at a platform between its nights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from tests.jobs.rfm_scoring.platform_nights import (
    BUYERS,
    DAY,
    EVENTS,
    HALL,
    HOUR,
    MINUTE,
    OTHER_TENANT,
    STAGE,
    TENANT_OF,
    VENUES,
    Platform,
)
from tests.jobs.rfm_scoring.rfm_oracle import Row, Rules

from venue_analytics.harness.history import Attempt

MICROSECOND = timedelta(microseconds=1)

#: When the row was last written according to updated_at; None leaves updated_at unchanged.
WRITTEN: dict[str, Callable[[Platform], datetime | None]] = {
    "since the last night": lambda at: at.last + (at.next - at.last) / 2,
    "long before": lambda at: at.last - 3 * DAY,
    "after as_of": lambda at: at.next + MINUTE,
    "unchanged": lambda _: None,
}
written = st.sampled_from(["since the last night"] * 5 + list(WRITTEN))
#: The same for changes of existing rows.
rewritten = st.sampled_from(["since the last night"] * 3 + ["unchanged"] * 2 + list(WRITTEN))
numbers = st.integers(0, 30)
buyers = st.integers(0, len(BUYERS) - 1)
events = st.integers(0, len(EVENTS) - 1)
venues = st.integers(0, len(VENUES) - 1)
#: Ages before or after the next night's as_of; on each threshold and next to it.
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


def _updated_at(written: str, at: Platform) -> dict[str, datetime]:
    """Return the column updated_at of a change, if it changes."""
    moment = WRITTEN[written](at)
    return {} if moment is None else {"updated_at": moment}


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
    """Changes a column of an order or refund; ages become moments, and numbers become ids."""

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
        at.put(self.table, row_id, **{self.column: value}, **_updated_at(self.written, at))


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

    def do(self, at: Platform) -> None:
        order_id = _pick(at.tables["orders"], self.order)
        if order_id is not None:
            amount = at.tables["orders"][order_id]["total_cents"] or 0
            at.refund(
                order_id, at.next - self.age, amount * self.percent // 100, status=self.status
            )


@dataclass(frozen=True)
class Merges:
    """Gives all of one customer's orders to another."""

    buyer: int
    into: int
    written: str

    def do(self, at: Platform) -> None:
        updated_at = _updated_at(self.written, at)
        for order_id, row in at.tables["orders"].items():
            if row["user_id"] == BUYERS[self.buyer]:
                at.put("orders", order_id, user_id=BUYERS[self.into], **updated_at)


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
    """Changes the rules for all venues, or for one."""

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


#: Every sequence begins with these purchases, so that later changes have something to change.
ALWAYS = tuple(
    Buys(
        buyer=number % len(BUYERS),
        event=number * 3 % len(EVENTS),
        cents=500 + number * number % 7 * 250,
        status="CONFIRMED",
        currency="USD",
        age=(1 + number * 11 % 100) * DAY,
        written="unchanged",
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
    """A night: what happens before it, the time since the last one, and how it is requested."""

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
            # only open venues may be requested; None means all
            venues=[v for v in ask.venues if at.is_open(v)] or None,
            force=ask.force,
            killed_before=self.killed_before,
        )


@dataclass(frozen=True)
class Ask:
    """How a night is requested."""

    as_of: Callable[[datetime, timedelta], datetime] = lambda last, after: last + after
    venues: tuple[UUID, ...] = ()
    force: bool = False


ASKED = {
    "by the schedule": Ask(),
    "of one venue": Ask(venues=(HALL,)),
    "of two venues": Ask(venues=(HALL, STAGE)),
    "again": Ask(as_of=lambda last, _: last),
    "again, forced": Ask(as_of=lambda last, _: last, force=True),
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
)
others = st.one_of(
    refund_changes,
    st.builds(Deletes, st.sampled_from(["orders", "order_refunds"]), numbers),
    st.builds(Merges, buyers, buyers, rewritten),
    st.builds(MovesEvent, events, venues),
    st.builds(OpensOrCloses, venues),
)
accounts = st.builds(
    ChangesAccount,
    buyers,
    st.sampled_from(
        ["opened here", "opened elsewhere", "deleted", "gone", "to be erased", "not to be erased"]
    ),
)
rule_changes = st.builds(ChangesRules, some_rules, venues | st.none())
deeds = st.sampled_from(
    [buys] * 3 + [changes] * 3 + [refunds, refunds, accounts, others, rule_changes]
).flatmap(lambda kind: kind)
nights = st.builds(
    Night,
    deeds=st.lists(deeds, min_size=1, max_size=5),
    after=st.sampled_from([HOUR, DAY, DAY, DAY, DAY + HOUR, 7 * DAY, 31 * DAY]),
    asked=st.sampled_from(["by the schedule"] * 20 + list(ASKED)),
    killed_before=st.sampled_from([None] * 15 + [3, 8, 15, 22, 30, 38]),
)
