"""Load a file of purchases in one pass and one transaction."""

import csv
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import psycopg

from venue_analytics.database.currencies import CODES
from venue_analytics.database.purchases.columns import (
    REQUIRED,
    ColumnChoice,
    LoadError,
    find_columns,
)
from venue_analytics.database.purchases.records import (
    DELIMITERS,
    UNDECODABLE,
    Record,
    read_lines,
    read_records,
)
from venue_analytics.database.purchases.rows import (
    MAX_NAME_CHARACTERS,
    Purchase,
    Reject,
    RowRules,
    is_plausible,
    read_row,
)
from venue_analytics.database.statements import statement

# The tenant of all rows, and the namespaces of their ids. A change to any of these orphans every
# loaded row.
TENANT_ID = UUID("2b6f5c0e-6c1d-5d5e-9d0b-6a4f0b1e7c11")
_ORDERS = uuid5(TENANT_ID, "orders")
_CUSTOMERS = uuid5(TENANT_ID, "customers")
_VENUES = uuid5(TENANT_ID, "venues")

REJECTS_SHOWN = 50
REJECTS_HEADER = ("line", "column", "value", "reason", "raw line")
_statement = partial(statement, "venue_analytics.database.purchases")
_HEAD_BYTES = 65_536
_ROWS_BETWEEN_PROGRESS = 10_000
_IDS_REMEMBERED = 65_536


@dataclass(frozen=True)
class LoadReport:
    """The result of a load.

    Attributes:
        dataset: the data set that was replaced.
        columns: the header of each role (customer, time, amount, …).
        delimiter: comma, semicolon, tab or bar.
        rows_read: rows of the file, without the header and blank lines at the end;
            = loaded + rejected.
        loaded: valid rows, all in the database now; = inserted + updated + unchanged.
        inserted: loaded rows that are new.
        updated: loaded rows that differ from the earlier load.
        unchanged: loaded rows that did not have to be written.
        removed: orders of an earlier load whose rows are no longer in the file, or now invalid.
        rejected: rows that were not loaded.
        rejected_by_kind: the number of rejected rows by kind of reason, most frequent first.
        rejects: the first 50 rejected rows; the rejects file has all of them.
        first_purchase: the earliest time of the loaded rows, whatever their status.
        last_purchase: the latest time of the loaded rows, whatever their status.
        venues: the number of venues in the loaded rows.
        customers: the number of customers in the loaded rows.
    """

    dataset: str
    columns: Mapping[str, str]
    delimiter: str
    rows_read: int
    loaded: int
    inserted: int
    updated: int
    unchanged: int
    removed: int
    rejected: int
    rejected_by_kind: Mapping[str, int]
    rejects: tuple[Reject, ...]
    first_purchase: datetime
    last_purchase: datetime
    venues: int
    customers: int


def load_orders(
    connection: psycopg.Connection,
    path: Path,
    *,
    columns: ColumnChoice,
    dataset: str | None = None,
    timezone: str = "UTC",
    currency: str = "USD",
    rejects: Path,
    now: datetime,
    progress: Callable[[int, int], None] | None = None,
) -> LoadReport:
    """Replace the rows of a data set in `csv.orders` with those of a file.

    The load commits once, at the end, unless the caller has a transaction open. A row's id derives
    from the data set and the line, so loading the same file again writes nothing, and a corrected
    file replaces the earlier rows. Invalid rows are left out, reported and written to a CSV file.
    Memory use does not depend on the size of the file.

    Args:
        connection: with a role that may write the adapter's tables (analytics_jobs).
        path: the file; UTF-8, with a header, separated by comma, semicolon, tab or bar.
        columns: the columns to use; a role that is None is recognised by a common name.
        dataset: the name of the data set; by default the file's name without its suffix.
        timezone: IANA time zone of the venues, and of times without an offset.
        currency: ISO 4217 code of amounts without a currency.
        rejects: the file for invalid rows; an older one is removed, a new one made only if needed.
        now: timezone-aware; a purchase must be earlier.
        progress: called every 10,000 rows and at the end, with the bytes read and the file's size.

    Raises:
        LoadError: nothing can be loaded, because the file, its header, an argument or every row
            is invalid. The database is unchanged.
        psycopg.Error: the database failed. It is unchanged.
    """
    dataset = _checked_name(path.stem if dataset is None else dataset)
    zone, currency = _checked_zone(timezone), _checked_currency(currency)
    with _opened(path, rejects) as file:
        size = path.stat().st_size
        header, delimiter, newline = _read_header(file, path, columns)
        positions = find_columns(header, columns)
        rules = RowRules(header, positions, zone, currency, dataset, now)
        text = TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline)
        plausible = partial(is_plausible, rules=rules)
        records = _without_header(read_records(read_lines(text), delimiter, plausible))
        rejected = _Rejects(rejects)
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('app.current_tenant_id', %s, true)", [str(TENANT_ID)])
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('csv.orders', 0))")
            cursor.execute(_statement("stage_orders"))
            with rejected, cursor.copy(_statement("copy_orders")) as copy:
                for number, record in enumerate(records):
                    if progress is not None and number % _ROWS_BETWEEN_PROGRESS == 0:
                        progress(min(file.tell(), size), size)
                    row = read_row(record, rules)
                    if isinstance(row, Reject):
                        rejected.add(row)
                    else:
                        copy.write_row(_staged(row, dataset))
            report = _merge(cursor, rejected, dataset, timezone, header, positions, delimiter)
    if progress is not None:
        progress(size, size)
    return report


class _Rejects:
    """Counts invalid rows and writes them to a file, which exists only if there are any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kinds: Counter[str] = Counter()
        self.first: list[Reject] = []
        self._file: TextIO | None = None

    def __enter__(self) -> None:
        self.path.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, reject: Reject) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8", newline="")
            csv.writer(self._file).writerow(REJECTS_HEADER)
        csv.writer(self._file).writerow(
            (reject.line, reject.column or "", reject.value, reject.reason, reject.raw)
        )
        self.kinds[reject.kind] += 1
        if len(self.first) < REJECTS_SHOWN:
            self.first.append(reject)


def _merge(
    cursor: psycopg.Cursor,
    rejected: _Rejects,
    dataset: str,
    timezone: str,
    header: list[str],
    positions: Mapping[str, int],
    delimiter: str,
) -> LoadReport:
    """Merge the staged rows into the adapter's tables, writing only rows that differ."""
    cursor.execute(_statement("summarise"))
    summary = cursor.fetchone()
    loaded, first_purchase, last_purchase, venues, customers = summary or (0,) * 5
    if loaded == 0:
        raise _nothing_loaded(rejected)

    def run(name: str) -> int:
        parameters = {"tenant_id": TENANT_ID, "dataset": dataset, "timezone": timezone}
        return cursor.execute(_statement(name), parameters).rowcount

    cursor.execute("ANALYZE pg_temp.staged_orders")
    run("upsert_venues")
    run("insert_customers")
    removed, updated, inserted = run("delete_orders"), run("update_orders"), run("insert_orders")
    if removed or updated:
        run("delete_customers")
        run("delete_venues")
    if removed or updated or inserted:
        run("set_currencies")
    return LoadReport(
        dataset=dataset,
        columns={role: header[position].strip() for role, position in positions.items()},
        delimiter=DELIMITERS[delimiter],
        rows_read=loaded + rejected.kinds.total(),
        loaded=loaded,
        inserted=inserted,
        updated=updated,
        unchanged=loaded - inserted - updated,
        removed=removed,
        rejected=rejected.kinds.total(),
        rejected_by_kind=dict(rejected.kinds.most_common()),
        rejects=tuple(rejected.first),
        first_purchase=first_purchase,
        last_purchase=last_purchase,
        venues=venues,
        customers=customers,
    )


def _staged(row: Purchase, dataset: str) -> tuple[object, ...]:
    """Return a row in the column order of `staged_orders`."""
    return (
        row.line,
        uuid5(_ORDERS, f"{dataset}:{row.line}"),
        _remembered_id(_VENUES, row.venue),
        row.venue,
        _remembered_id(_CUSTOMERS, row.customer),
        row.customer,
        row.ordered_at,
        row.amount,
        row.status,
        row.currency,
        row.tickets,
    )


@lru_cache(_IDS_REMEMBERED)
def _remembered_id(namespace: UUID, name: str) -> UUID:
    return uuid5(namespace, name)


@contextmanager
def _opened(path: Path, rejects: Path) -> Iterator[BinaryIO]:
    if path.exists() and rejects.exists() and path.samefile(rejects):
        raise LoadError(f"The rejects would overwrite the file itself: {path}.")
    if path.is_dir():
        raise LoadError(f"{path} is a folder, not a CSV file.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise LoadError(f"Cannot read {path}: {error.strerror}.") from error
    with file:
        yield file


def _read_header(file: BinaryIO, path: Path, columns: ColumnChoice) -> tuple[list[str], str, str]:
    """Return the header's fields, the delimiter and the line end; rewind the file."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise LoadError(f"{path} is empty: {_EXPECTED}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LoadError(f"{path} is UTF-16 text. Save it as UTF-8 (in a spreadsheet: CSV UTF-8).")
    # Some spreadsheets still end lines with a lone carriage return.
    newline = "\r" if b"\n" not in head and b"\r" in head else "\n"
    text = head.decode("utf-8-sig", "surrogateescape")

    found: list[tuple[bool, int, str, Record]] = []
    for delimiter in DELIMITERS:
        lines = read_lines(StringIO(text, newline))
        record = next(_from_header(read_records(lines, delimiter, lambda *_: True)))
        try:
            find_columns(record.fields, columns)
            usable = True
        except LoadError:
            usable = False
        found.append((usable, len(record.fields), delimiter, record))
    # With the wrong delimiter a quoted header is malformed: it has no fields and is never chosen.
    _, count, delimiter, record = max(found, key=lambda candidate: candidate[:2])
    if not count or UNDECODABLE.search(record.raw):
        kind = record.problem[0] if record.problem else "not UTF-8"
        raise LoadError(
            f"The first line of {path} cannot be read ({kind}): {_EXPECTED} Is it a spreadsheet, "
            "an archive or text in another encoding? Save it as CSV in UTF-8."
        )
    return record.fields, delimiter, newline


_EXPECTED = (
    f"the first line must name the columns, at least those of {', '.join(REQUIRED)}, "
    "and each line after it is a purchase."
)


def _from_header(records: Iterator[Record]) -> Iterator[Record]:
    """Yield the records from the first one that is not blank."""
    for record in records:
        if record.fields or record.problem is not None:
            yield record
            break
    yield from records


def _without_header(records: Iterator[Record]) -> Iterator[Record]:
    """Yield the records below the header, without blank lines at the end of the file."""
    below = _from_header(records)
    next(below)
    blank: tuple[int, int] | None = None
    for record in below:
        if not record.fields and record.problem is None:
            blank = (blank[0] if blank else record.line, record.line)
            continue
        if blank:
            # Only the range was kept, because there may be any number of blank lines.
            yield from (Record(line, "", []) for line in range(blank[0], blank[1] + 1))
            blank = None
        yield record


def _nothing_loaded(rejected: _Rejects) -> LoadError:
    if not rejected.first:
        return LoadError("The file has a header and no rows. Rows loaded before are unchanged.")
    count, path = rejected.kinds.total(), rejected.path
    lines = [
        f"None of the {count:,} rows can be loaded; rows loaded before are unchanged.",
        f"{path} has all of them, with the reasons. The first:",
    ]
    for reject in rejected.first[:3]:
        where = f"line {reject.line}" + (f", column {reject.column}" if reject.column else "")
        lines.append(f"  {where}: {reject.value!r} {reject.reason}")
    lines.append("Choose other columns with --customer-column, --time-column, --amount-column …")
    return LoadError("\n".join(lines))


def _checked_name(dataset: str) -> str:
    dataset = dataset.strip()
    if not dataset or len(dataset) > MAX_NAME_CHARACTERS:
        raise LoadError(
            f"The data set's name has {len(dataset)} characters; it needs 1 to "
            f"{MAX_NAME_CHARACTERS} (--dataset)."
        )
    if any(unicodedata.category(c) in {"Cc", "Cs"} for c in dataset):
        raise LoadError(f"The data set's name {dataset!a} is not plain text (--dataset).")
    return dataset


def _checked_zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    except (ValueError, OSError, KeyError) as error:
        raise LoadError(
            f"There is no time zone {timezone!r} (--timezone); use an IANA name such as "
            "Europe/Berlin."
        ) from error


def _checked_currency(currency: str) -> str:
    if currency.upper() not in CODES:
        raise LoadError(
            f"{currency!r} is not an ISO 4217 currency code, such as USD or EUR (--currency)."
        )
    return currency.upper()
