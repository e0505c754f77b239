"""Which values of a row are good, and how bad ones are reported."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from io import StringIO
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venue_analytics.database.purchases.records import Record, read_lines, read_records
from venue_analytics.database.purchases.rows import (
    Purchase,
    Reject,
    RowRules,
    is_plausible,
    printable,
    read_row,
)

ROLES = ("customer", "time", "amount", "venue", "tickets", "status", "currency")
GOOD = {
    "customer": "c1",
    "time": "2025-03-30T01:30:00",
    "amount": "29.33",
    "venue": "Blue Hall",
    "tickets": "2",
    "status": "paid",
    "currency": "EUR",
}
RULES = RowRules(
    header=[role.title() for role in ROLES],
    positions={role: position for position, role in enumerate(ROLES)},
    zone=ZoneInfo("Europe/Berlin"),
    currency="USD",
    venue="all",
    now=datetime(2026, 1, 1, 12, tzinfo=UTC),
)


def row(**values: str) -> Purchase | Reject:
    fields = [(GOOD | values)[role] for role in ROLES]
    return read_row(Record(7, ",".join(fields), fields), RULES)


def good(**values: str) -> Purchase:
    found = row(**values)
    assert isinstance(found, Purchase), found
    return found


def bad(**values: str) -> Reject:
    found = row(**values)
    assert isinstance(found, Reject), found
    return found


def test_a_good_row_is_a_purchase() -> None:
    assert good() == Purchase(
        line=7,
        customer="c1",
        venue="Blue Hall",
        ordered_at=datetime(2025, 3, 30, 0, 30, tzinfo=UTC),  # 01:30 in Berlin, still winter
        amount=Decimal("29.33"),
        status="paid",
        currency="EUR",
        tickets=2,
    )


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2025-07-01", datetime(2025, 6, 30, 22, tzinfo=UTC)),  # midnight in Berlin
        ("20250701", datetime(2025, 6, 30, 22, tzinfo=UTC)),
        ("2025-07-01 10:00", datetime(2025, 7, 1, 8, tzinfo=UTC)),
        ("2025-07-01T10:00:00.25", datetime(2025, 7, 1, 8, 0, 0, 250_000, tzinfo=UTC)),
        ("2025-07-01T10:00:00Z", datetime(2025, 7, 1, 10, tzinfo=UTC)),
        ("2025-07-01T10:00:00-05:00", datetime(2025, 7, 1, 15, tzinfo=UTC)),
        (" 2026-01-01T12:59:59 ", datetime(2026, 1, 1, 11, 59, 59, tzinfo=UTC)),
        ("1900-01-01T00:00:00Z", datetime(1900, 1, 1, tzinfo=UTC)),
    ],
)
def test_any_iso_date_or_time_is_read_in_its_own_zone_or_the_given_one(
    text: str, at: datetime
) -> None:
    assert good(time=text).ordered_at == at


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", "0"),
        ("-0.00", "0"),
        ("+5", "5"),
        ("5.", "5"),
        (".5", "0.5"),
        ("29.3300", "29.33"),
        ("9999999999.99", "9999999999.99"),
    ],
)
def test_plain_numbers_with_at_most_two_decimals_are_amounts(text: str, amount: str) -> None:
    assert good(amount=text).amount == Decimal(amount)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Completed", "paid"),
        ("CONFIRMED", "paid"),
        ("refund_initiated", "paid"),
        ("On hold", "pending"),
        ("canceled", "cancelled"),
        ("payment-failed", "cancelled"),
        (" Refunded ", "refunded"),
    ],
)
def test_common_words_for_a_status_are_recognised(text: str, status: str) -> None:
    assert good(status=text).status == status


def test_optional_values_may_be_empty() -> None:
    found = good(tickets="", currency="")
    assert (found.tickets, found.currency) == (None, "USD")


def test_names_are_stripped_and_a_venues_name_is_put_on_one_line() -> None:
    found = good(customer=" c 1 ", venue=" Blue\n Hall ", tickets="2.0", currency="eur")
    assert (found.customer, found.venue) == ("c 1", "Blue Hall")
    assert (found.tickets, found.currency) == (2, "EUR")


def test_optional_columns_may_be_missing() -> None:
    positions = {"customer": 0, "time": 1, "amount": 2}
    rules = RowRules(["c", "t", "a"], positions, ZoneInfo("UTC"), "USD", "shop", RULES.now)
    found = read_row(Record(2, "c1,2025-01-01,5", ["c1", "2025-01-01", "5"]), rules)
    assert found == Purchase(
        2, "c1", "shop", datetime(2025, 1, 1, tzinfo=UTC), Decimal(5), "paid", "USD", None
    )


@pytest.mark.parametrize(
    ("role", "value", "kind"),
    [
        ("customer", "", "empty customer"),
        ("customer", " \t", "empty customer"),
        ("customer", "x" * 201, "customer too long"),
        ("customer", "a\tb", "control character"),
        ("customer", 'c1"', "bad quotes"),
        ("customer", "M\udcfcller", "not UTF-8"),
        ("venue", "", "empty venue"),
        ("venue", "x" * 201, "venue too long"),
        ("time", "", "empty time"),
        ("time", "yesterday", "unreadable time"),
        ("time", "03/30/2025", "unreadable time"),
        ("time", "2025-02-29", "impossible time"),
        ("time", "2025-13-01", "impossible time"),
        ("time", "2025-01-01T25:00", "impossible time"),
        ("time", "0001-01-01", "time too early"),
        ("time", "1899-12-31T23:59:59Z", "time too early"),
        ("time", "2026-01-01T12:00:00Z", "time in the future"),
        ("time", "9999-12-31T23:59:59-12:00", "time in the future"),
        ("amount", "", "empty amount"),
        ("amount", "free", "unreadable amount"),
        ("amount", "$5", "unreadable amount"),
        ("amount", "1e999", "unreadable amount"),
        ("amount", "0x10", "unreadable amount"),
        ("amount", "1_000", "unreadable amount"),
        ("amount", "٣", "unreadable amount"),
        ("amount", "-0.01", "negative amount"),
        ("amount", "NaN", "amount not finite"),
        ("amount", "-Infinity", "amount not finite"),
        ("amount", "1.234", "too many decimals"),
        ("amount", "10000000000", "amount too large"),
        ("amount", "9" * 5000, "amount too large"),
        ("amount", "1,50", "separator in amount"),
        ("amount", "1 000.00", "separator in amount"),
        ("status", "", "unknown status"),
        ("status", "maybe", "unknown status"),
        ("currency", "EURO", "unknown currency"),
        ("currency", "XXX", "unknown currency"),
        ("currency", "€", "unknown currency"),
        ("tickets", "-1", "bad number of tickets"),
        ("tickets", "1.5", "bad number of tickets"),
        ("tickets", "two", "bad number of tickets"),
        ("tickets", "2147483648", "bad number of tickets"),
        ("tickets", "9" * 5000, "bad number of tickets"),
    ],
)
def test_a_bad_value_is_reported_with_its_column_and_kind(role: str, value: str, kind: str) -> None:
    reject = bad(**{role: value})
    assert (reject.line, reject.column, reject.kind) == (7, role.title(), kind)
    assert reject.reason
    assert len(reject.value) <= 80
    assert reject.value.isprintable()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (list(GOOD.values())[:-1], "missing fields"),
        ([*GOOD.values(), ""], "extra fields"),
        ([], "blank line"),
        (RULES.header, "header again"),
    ],
)
def test_a_malformed_row_is_reported_without_a_column(fields: list[str], kind: str) -> None:
    reject = read_row(Record(3, ",".join(fields), list(fields)), RULES)
    assert isinstance(reject, Reject)
    assert (reject.line, reject.column, reject.kind) == (3, None, kind)


def test_bytes_that_are_not_utf8_spoil_a_row_in_any_column() -> None:
    header = [*RULES.header, "note"]
    rules = RowRules(header, RULES.positions, RULES.zone, "USD", "all", RULES.now)
    fields = [*GOOD.values(), "caf\udce9"]
    reject = read_row(Record(3, ",".join(fields), fields), rules)
    assert isinstance(reject, Reject)
    assert (reject.column, reject.kind) == (None, "not UTF-8")
    assert reject.raw.endswith(r"caf\xe9")


def test_a_line_with_a_time_or_an_amount_in_its_column_looks_like_a_row() -> None:
    fields = list(GOOD.values())
    assert is_plausible(fields, False, RULES)
    assert is_plausible([*fields[:2], "x", *fields[3:]], False, RULES)
    assert not is_plausible([fields[0], "x", "x", *fields[3:]], False, RULES)
    assert not is_plausible(fields[:-1], False, RULES)


def test_a_record_may_have_line_ends_only_in_harmless_columns() -> None:
    assert is_plausible(list((GOOD | {"venue": "Blue\nHall"}).values()), True, RULES)
    assert not is_plausible(list((GOOD | {"customer": "c\n1"}).values()), True, RULES)


def test_printable_text_cannot_control_a_terminal() -> None:
    assert printable("a\x1b[31m\udcff\0é") == r"a\x1b[31m\xff\x00é"


GARBAGE = st.text(st.sampled_from('"",,a1 \0\udcff5'), max_size=12)
GOOD_ROWS = st.sampled_from(
    [
        "{},2025-01-01,5,",
        '"{}",2025-01-01,"5",""',
        '{},2025-01-01,5,","',
        '{},2025-01-01,5,"x ""y"""',
        '{},2025-01-01,5,"two\nlines, and ""quotes"""',
    ]
)
OPEN_QUOTES = st.sampled_from(['"b,2025-01-01,5,', 'b,2025-01-01,5,"', 'b",2025-01-01,5,""'])


@given(st.lists(st.one_of(GOOD_ROWS, GARBAGE, OPEN_QUOTES), max_size=14))
def test_a_good_row_is_read_whatever_is_around_it(texts: list[str]) -> None:
    header, positions = ["c", "t", "a", "note"], {"customer": 0, "time": 1, "amount": 2}
    rules = RowRules(header, positions, ZoneInfo("UTC"), "USD", "shop", RULES.now)
    texts = [text.format(f"good{number}") for number, text in enumerate(texts)]
    lines = read_lines(StringIO("".join(f"{text}\n" for text in texts), "\n"))
    records = read_records(lines, ",", partial(is_plausible, rules=rules))
    found = [
        row.customer for row in (read_row(r, rules) for r in records) if isinstance(row, Purchase)
    ]
    expected = [f"good{number}" for number, text in enumerate(texts) if "good" in text]
    assert [customer for customer in found if customer.startswith("good")] == expected
