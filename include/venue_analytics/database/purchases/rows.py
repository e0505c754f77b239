"""From a record of the file to a purchase, or to the reason why it is none."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from venue_analytics.database.currencies import CODES
from venue_analytics.database.purchases.columns import normalise
from venue_analytics.database.purchases.records import UNDECODABLE, Record

MAX_NAME_CHARACTERS = 200
MAX_AMOUNT = Decimal(10) ** 10
MAX_TICKETS = 2**31 - 1
EARLIEST_YEAR = 1900
SHOWN_CHARACTERS = 80

STATUSES = ("paid", "pending", "cancelled", "refunded")
# Words used for them, without case, spaces and dashes. A refund only begun leaves an order paid.
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
    """A good row: ordered_at aware, amount in units of its currency, tickets None = unknown."""

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
        line: where it begins; the file's first line is 1.
        column: the header of the column at fault; None = the row as a whole.
        value: what stands there, at most 80 characters, unprintable ones escaped.
        kind: what is wrong, in a word or two that are the same for all such rows.
        reason: what is wrong and what is allowed.
        raw: the row as it stands in the file, bytes that are not UTF-8 escaped.
    """

    line: int
    column: str | None
    value: str
    kind: str
    reason: str
    raw: str


@dataclass(frozen=True)
class RowRules:
    """What a file's rows are read by.

    Attributes:
        header: the file's column names.
        positions: which of them holds what, as `find_columns` found.
        zone: the clock of times that name none.
        currency: that of rows that name none (ISO 4217).
        venue: that of all rows, in a file without a venue column.
        now: aware; a purchase lies before it.
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
    """The purchase that stands in a record, or the first thing that is wrong with it."""
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
    """Whether fields read from several lines are one record, or from one line a row by itself.

    A record may hold line ends in a venue's name and in columns that are not used. One line looks
    like a row if it has as many fields as the header, and a time or an amount where they belong.
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


def printable(text: str, keep: str = "") -> str:
    r"""The text with its unprintable characters escaped: a byte that is not UTF-8 as \xff."""
    if text.isprintable():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


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
    return _BadValueError(None, record.raw, "header again", "is the header once more")


def _undecodable(record: Record, rules: RowRules) -> _BadValueError:
    kind, reason = "not UTF-8", "holds bytes that are not UTF-8 text"
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
        None, record.raw, kind, f"has {found} fields where the header has {wanted} columns"
    )


def _name(record: Record, role: str, value: str) -> str:
    if not value:
        raise _BadValueError(role, value, f"empty {role}", f"the {role} is empty")
    if len(value) > MAX_NAME_CHARACTERS:
        reason = f"the {role} has {len(value):,} characters, of at most {MAX_NAME_CHARACTERS}"
        raise _BadValueError(role, value, f"{role} too long", reason)
    if _CONTROL.search(value):
        reason = f"the {role} holds a control character"
        raise _BadValueError(role, value, "control character", reason)
    if '"' in value and '""' not in record.raw:
        reason = f'the {role} holds a stray quote ("); inside a quoted field it is written ""'
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
        reason = f"the time lies before the year {EARLIEST_YEAR}"
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
        reason = "is negative; a purchase that was paid back has the status refunded"
        raise _BadValueError("amount", value, "negative amount", reason)
    if amount >= MAX_AMOUNT:
        reason = f"is too large; amounts are below {MAX_AMOUNT:,}"
        raise _BadValueError("amount", value, "amount too large", reason)
    if len(value.partition(".")[2].rstrip("0")) > 2:
        reason = "has more than 2 decimals"
        raise _BadValueError("amount", value, "too many decimals", reason)
    return amount


def _unreadable_amount(value: str) -> _BadValueError:
    if not value:
        return _BadValueError("amount", value, "empty amount", "the amount is empty")
    if re.fullmatch(r"[-+]?(s?nan\d*|inf|infinity)", value, re.IGNORECASE):
        reason = "is no finite number"
        return _BadValueError("amount", value, "amount not finite", reason)
    if re.fullmatch(r"[-+]?[0-9.,'\s]*[0-9][0-9.,'\s]*", value):
        reason = "has a comma or another separator; write a decimal point and no thousands, 1234.50"
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
        reason = f"is none of the statuses {', '.join(STATUSES)}, nor a usual word for one"
        raise _BadValueError("status", value, "unknown status", reason)
    return status


def _currency(fields: Sequence[str], rules: RowRules) -> str:
    position = rules.positions.get("currency")
    code = "" if position is None else fields[position].strip().upper()
    if not code:
        return rules.currency
    if code not in CODES:
        reason = "is no currency code of ISO 4217, such as USD or EUR"
        raise _BadValueError("currency", fields[position or 0], "unknown currency", reason)
    return code


def _tickets(fields: Sequence[str], rules: RowRules) -> int | None:
    position = rules.positions.get("tickets")
    value = "" if position is None else fields[position].strip()
    if not value:
        return None
    whole = _WHOLE_NUMBER.fullmatch(value)
    # The length first: int() refuses thousands of digits, with an error that is not ours.
    if whole is None or len(whole[1]) > MAX_NAME_CHARACTERS or int(whole[1]) > MAX_TICKETS:
        reason = f"is not a whole number from 0 to {MAX_TICKETS:,}"
        raise _BadValueError("tickets", value, "bad number of tickets", reason)
    return int(whole[1])
