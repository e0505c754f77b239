"""Parse a record of the file into a purchase, or the reason why it is rejected."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from venue_analytics.database.currencies import CODES
from venue_analytics.database.printable import printable
from venue_analytics.database.purchases.columns import normalise
from venue_analytics.database.purchases.records import UNDECODABLE, Record

MAX_NAME_CHARACTERS = 200
MAX_AMOUNT = Decimal(10) ** 10
MAX_TICKETS = 2**31 - 1
EARLIEST_YEAR = 1900
SHOWN_CHARACTERS = 80

STATUSES = ("paid", "pending", "cancelled", "refunded")
# Common words for them, normalised. An order whose refund has only been initiated counts as paid.
_WORDS = {
    "paid": """
        paid complete completed confirmed fulfilled delivered shipped success successful succeeded
        settled captured approved refundinitiated
    """,
    "pending": "pending reserved open unpaid processing onhold awaitingpayment created",
    "cancelled": """
        cancelled canceled expired failed paymentfailed declined rejected void voided abandoned
    """,
    "refunded": "refunded refund returned",
}
_STATUS_OF = {word: status for status, words in _WORDS.items() for word in words.split()}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLAIN_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
_WHOLE_NUMBER = re.compile(r"(\d+)(\.0*)?", re.ASCII)
_WRITTEN_AS_TIME = re.compile(r"\d{4}-?\d\d-?\d\d([T ].*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Purchase:
    """A valid row.

    Attributes:
        line: the line where it begins; the file's first line is 1.
        customer: the customer's key.
        venue: the venue's name.
        ordered_at: timezone-aware.
        amount: in units of the currency.
        status: one of STATUSES.
        currency: ISO 4217 code.
        tickets: None if unknown.
    """

    line: int
    customer: str
    venue: str
    ordered_at: datetime
    amount: Decimal
    status: str
    currency: str
    tickets: int | None


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not loaded, and why.

    Attributes:
        line: the line where it begins; the file's first line is 1.
        column: the header of the invalid column; None means the row as a whole.
        value: the invalid value, at most 80 characters, unprintable ones escaped.
        kind: the kind of error in a few words, the same for all such rows.
        reason: what is wrong and what is allowed.
        raw: the row's text in the file, with bytes that are not UTF-8 escaped.
    """

    line: int
    column: str | None
    value: str
    kind: str
    reason: str
    raw: str


@dataclass(frozen=True)
class RowRules:
    """What is needed to parse the rows of a file.

    Attributes:
        header: the file's column names.
        positions: the position of each role's column, from `find_columns`.
        zone: the time zone of times without an offset.
        currency: the currency of rows without one (ISO 4217).
        venue: the venue of all rows, in a file without a venue column.
        now: timezone-aware; a purchase must be earlier.
    """

    header: Sequence[str]
    positions: Mapping[str, int]
    zone: ZoneInfo
    currency: str
    venue: str
    now: datetime


class _BadValueError(Exception):
    def __init__(self, role: str | None, value: str, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.role, self.value, self.kind, self.reason = role, value, kind, reason


def read_row(record: Record, rules: RowRules) -> Purchase | Reject:
    """Return the purchase in a record, or a reject with the first error found."""
    try:
        return _purchase(record, rules)
    except _BadValueError as error:
        again = record.fields == list(rules.header)
        bad = _header_again(record) if again else error
        column = None if bad.role is None else rules.header[rules.positions[bad.role]].strip()
        return Reject(
            record.line,
            column,
            printable(bad.value[:SHOWN_CHARACTERS])[:SHOWN_CHARACTERS],
            bad.kind,
            bad.reason,
            printable(record.raw, keep="\t\n"),
        )


def is_plausible(fields: list[str], several_lines: bool, rules: RowRules) -> bool:
    """Return whether fields from several lines are one record, or from one line a row of its own.

    A record may have line ends only in the venue's name and in unused columns. One line looks like
    a row if it has as many fields as the header, and a valid time or amount in its column.
    """
    if len(fields) != len(rules.header):
        return False
    if several_lines:
        used = [fields[at] for role, at in rules.positions.items() if role != "venue"]
        return not any("\n" in value or "\r" in value for value in used)
    for check in (_time, _amount):
        try:
            check(fields, rules)
        except _BadValueError:
            continue
        return True
    return False


def _purchase(record: Record, rules: RowRules) -> Purchase:
    fields = record.fields
    if record.problem is not None:
        kind, reason = record.problem
        raise _BadValueError(None, record.raw, kind, reason)
    if not record.raw.isascii() and UNDECODABLE.search(record.raw):
        raise _undecodable(record, rules)
    if len(fields) != len(rules.header):
        raise _wrong_number_of_fields(record, rules)
    return Purchase(
        record.line,
        _customer(record, rules),
        _venue(record, rules),
        _time(fields, rules),
        _amount(fields, rules),
        _status(fields, rules),
        _currency(fields, rules),
        _tickets(fields, rules),
    )


def _header_again(record: Record) -> _BadValueError:
    return _BadValueError(None, record.raw, "header again", "repeats the header")


def _undecodable(record: Record, rules: RowRules) -> _BadValueError:
    kind, reason = "not UTF-8", "contains bytes that are not UTF-8 text"
    for role, position in rules.positions.items():
        value = record.fields[position] if position < len(record.fields) else ""
        if UNDECODABLE.search(value):
            return _BadValueError(role, value, kind, reason)
    return _BadValueError(None, record.raw, kind, reason)


def _wrong_number_of_fields(record: Record, rules: RowRules) -> _BadValueError:
    found, wanted = len(record.fields), len(rules.header)
    if not found:
        return _BadValueError(None, "", "blank line", "is blank, with rows after it")
    kind = "missing fields" if found < wanted else "extra fields"
    return _BadValueError(
        None, record.raw, kind, f"has {found} fields, but the header has {wanted} columns"
    )


def _name(record: Record, role: str, value: str) -> str:
    if not value:
        raise _BadValueError(role, value, f"empty {role}", f"the {role} is empty")
    if len(value) > MAX_NAME_CHARACTERS:
        reason = f"the {role} has {len(value):,} characters; the maximum is {MAX_NAME_CHARACTERS}"
        raise _BadValueError(role, value, f"{role} too long", reason)
    if _CONTROL.search(value):
        reason = f"the {role} contains a control character"
        raise _BadValueError(role, value, "control character", reason)
    if '"' in value and '""' not in record.raw:
        reason = f'the {role} contains a stray quote ("); inside a quoted field it is written ""'
        raise _BadValueError(role, value, "bad quotes", reason)
    return value


def _customer(record: Record, rules: RowRules) -> str:
    return _name(record, "customer", record.fields[rules.positions["customer"]].strip())


def _venue(record: Record, rules: RowRules) -> str:
    position = rules.positions.get("venue")
    if position is None:
        return rules.venue
    return _name(record, "venue", " ".join(record.fields[position].split()))


def _time(fields: Sequence[str], rules: RowRules) -> datetime:
    value = fields[rules.positions["time"]].strip()
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise _unreadable_time(value) from None
    if at.year < EARLIEST_YEAR:
        reason = f"the time is before the year {EARLIEST_YEAR}"
        raise _BadValueError("time", value, "time too early", reason)
    if at.tzinfo is None:
        at = at.replace(tzinfo=rules.zone)
    if at >= rules.now:
        reason = f"the time is not before now ({rules.now.astimezone(UTC):%Y-%m-%d %H:%M} UTC)"
        raise _BadValueError("time", value, "time in the future", reason)
    return at


def _unreadable_time(value: str) -> _BadValueError:
    if not value:
        return _BadValueError("time", value, "empty time", "the time is empty")
    if _WRITTEN_AS_TIME.fullmatch(value):
        reason = "no such date or time exists"
        return _BadValueError("time", value, "impossible time", reason)
    reason = "is not an ISO date or time, such as 2026-01-31 or 2026-01-31T19:30:00+01:00"
    return _BadValueError("time", value, "unreadable time", reason)


def _amount(fields: Sequence[str], rules: RowRules) -> Decimal:
    value = fields[rules.positions["amount"]].strip()
    if not _PLAIN_NUMBER.fullmatch(value):
        raise _unreadable_amount(value)
    amount = Decimal(value)
    if amount < 0:
        reason = "is negative; a refunded purchase has the status refunded instead"
        raise _BadValueError("amount", value, "negative amount", reason)
    if amount >= MAX_AMOUNT:
        reason = f"is too large; amounts must be below {MAX_AMOUNT:,}"
        raise _BadValueError("amount", value, "amount too large", reason)
    if len(value.partition(".")[2].rstrip("0")) > 2:
        reason = "has more than 2 decimals"
        raise _BadValueError("amount", value, "too many decimals", reason)
    return amount


def _unreadable_amount(value: str) -> _BadValueError:
    if not value:
        return _BadValueError("amount", value, "empty amount", "the amount is empty")
    if re.fullmatch(r"[-+]?(s?nan\d*|inf|infinity)", value, re.IGNORECASE):
        reason = "is not a finite number"
        return _BadValueError("amount", value, "amount not finite", reason)
    if re.fullmatch(r"[-+]?[0-9.,'\s]*[0-9][0-9.,'\s]*", value):
        reason = "has a comma or another separator; use only a decimal point, such as 1234.50"
        return _BadValueError("amount", value, "separator in amount", reason)
    reason = "is not a plain decimal number, such as 1234.50 (no currency sign, no exponent)"
    return _BadValueError("amount", value, "unreadable amount", reason)


def _status(fields: Sequence[str], rules: RowRules) -> str:
    position = rules.positions.get("status")
    if position is None:
        return "paid"
    value = fields[position]
    status = _STATUS_OF.get(value) or _STATUS_OF.get(normalise(value))
    if status is None:
        reason = f"is not one of {', '.join(STATUSES)}, nor a common word for one of them"
        raise _BadValueError("status", value, "unknown status", reason)
    return status


def _currency(fields: Sequence[str], rules: RowRules) -> str:
    position = rules.positions.get("currency")
    code = "" if position is None else fields[position].strip().upper()
    if not code:
        return rules.currency
    if code not in CODES:
        reason = "is not an ISO 4217 currency code, such as USD or EUR"
        raise _BadValueError("currency", fields[position or 0], "unknown currency", reason)
    return code


def _tickets(fields: Sequence[str], rules: RowRules) -> int | None:
    position = rules.positions.get("tickets")
    value = "" if position is None else fields[position].strip()
    if not value:
        return None
    whole = _WHOLE_NUMBER.fullmatch(value)
    # Check the length first: int() raises an error of its own for thousands of digits.
    if whole is None or len(whole[1]) > MAX_NAME_CHARACTERS or int(whole[1]) > MAX_TICKETS:
        reason = f"is not a whole number from 0 to {MAX_TICKETS:,}"
        raise _BadValueError("tickets", value, "bad number of tickets", reason)
    return int(whole[1])
