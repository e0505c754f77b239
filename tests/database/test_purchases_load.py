"""Loading a file of purchases into a real database, as the jobs' role."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

from venue_analytics.database.contract import VIEWS
from venue_analytics.database.purchases import (
    ColumnChoice,
    LoadError,
    LoadReport,
    load_orders,
)
from venue_analytics.database.purchases.load import TENANT_ID

if TYPE_CHECKING:
    from tests.conftest import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = "customer,time,amount"
OTHER_TENANT = UUID(int=1)


@pytest.fixture
def database(new_database: Callable[[str | None], Database]) -> Database:
    return new_database("csv")


@pytest.fixture
def jobs(database: Database) -> Iterator[psycopg.Connection]:
    with database.jobs() as connection:
        yield connection


@pytest.fixture
def everything(database: Database) -> Iterator[psycopg.Connection]:
    """Yield a connection that sees all tenants' rows."""
    with database.superuser() as connection:
        yield connection


class Shop:
    """A folder with one file of purchases, and the database that it is loaded into."""

    def __init__(self, connection: psycopg.Connection, folder: Path) -> None:
        self.connection = connection
        self.file = folder / "shop.csv"
        self.rejects = folder / "rejected" / "shop.csv"

    def load(self, content: str | bytes, **options: Any) -> LoadReport:
        self.file.write_bytes(content.encode() if isinstance(content, str) else content)
        defaults: dict[str, Any] = {"columns": ColumnChoice(), "rejects": self.rejects, "now": NOW}
        return load_orders(self.connection, self.file, **(defaults | options))

    def rows_in_rejects(self) -> list[list[str]]:
        with self.rejects.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))


@pytest.fixture
def shop(jobs: psycopg.Connection, tmp_path: Path) -> Shop:
    return Shop(jobs, tmp_path)


def _sql(name: str) -> bytes:
    return files("venue_analytics.database").joinpath(name).read_bytes()


def rows(connection: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    with connection.transaction():
        connection.execute("SELECT set_config('app.current_tenant_id', %s, true)", [str(TENANT_ID)])
        return connection.execute(query.encode()).fetchall()


ORDERS = "SELECT file_line, amount FROM csv.orders ORDER BY file_line"
VERSIONS = """
    SELECT 'o', order_id, xmin::text, ctid::text FROM csv.orders
    UNION ALL SELECT 'c', customer_id, xmin::text, ctid::text FROM csv.customers
    UNION ALL SELECT 'v', venue_id, xmin::text, ctid::text FROM csv.venues
    ORDER BY 1, 2
"""


def test_a_file_is_loaded_and_reported(shop: Shop, jobs: psycopg.Connection) -> None:
    report = shop.load(
        "Customer ID;Order Date;Total;Venue;Qty;State;Currency\n"
        "c1;2025-01-01;10.50;Hall;2;x;EUR\n"
        "c2;2025-01-02T10:00:00Z;0;Hall;;x;EUR\n"
        "c1;2025-03-01;7;Attic;1;x;USD\n",
        timezone="Europe/Berlin",
    )
    assert report.columns == {
        "customer": "Customer ID",
        "time": "Order Date",
        "amount": "Total",
        "venue": "Venue",
        "tickets": "Qty",
        "currency": "Currency",
    }
    assert (report.dataset, report.delimiter) == ("shop", "semicolon")
    assert (report.rows_read, report.loaded, report.inserted) == (3, 3, 3)
    assert (report.updated, report.unchanged, report.removed, report.rejected) == (0, 0, 0, 0)
    assert (report.venues, report.customers) == (2, 2)
    assert report.first_purchase == datetime(2024, 12, 31, 23, tzinfo=UTC)  # midnight in Berlin
    assert report.last_purchase == datetime(2025, 2, 28, 23, tzinfo=UTC)
    assert not shop.rejects.exists()
    assert rows(
        jobs, "SELECT name, timezone, currency, capacity, open FROM source.venues ORDER BY name"
    ) == [
        ("Attic", "Europe/Berlin", "USD", None, True),
        ("Hall", "Europe/Berlin", "EUR", None, True),
    ]
    assert rows(
        jobs,
        "SELECT c.external_id, v.name, o.status, o.amount_cents, o.tickets FROM source.orders AS o"
        " JOIN source.customers AS c USING (customer_id) JOIN source.venues AS v USING (venue_id)"
        " ORDER BY o.ordered_at",
    ) == [
        ("c1", "Hall", "paid", 1050, 2),
        ("c2", "Hall", "paid", 0, None),
        ("c1", "Attic", "paid", 700, 1),
    ]


def test_equal_rows_are_both_kept_and_a_second_load_writes_no_row(
    shop: Shop, jobs: psycopg.Connection
) -> None:
    content = f"{HEADER}\n" + "c1,2025-01-01,5\n" * 2 + "c2,2025-01-01,5\n"
    assert shop.load(content).inserted == 3
    before = rows(jobs, VERSIONS)
    second = shop.load(content)
    assert (second.loaded, second.inserted, second.updated, second.removed) == (3, 0, 0, 0)
    assert second.unchanged == 3
    assert rows(jobs, VERSIONS) == before
    assert len(before) == 3 + 2 + 1


def test_a_corrected_file_rewrites_only_its_corrected_rows(
    shop: Shop, jobs: psycopg.Connection
) -> None:
    first = shop.load(f"{HEADER}\nc1,2025-01-01,5\nc2,2025-01-01,oops\nc3,2025-01-01,7\n")
    assert (first.loaded, first.rejected) == (2, 1)
    assert shop.rejects.exists()
    before = rows(jobs, VERSIONS)
    mended = shop.load(f"{HEADER}\nc1,2025-01-01,5\nc2,2025-01-01,6\nc3,2025-01-01,8\n")
    assert (mended.inserted, mended.updated, mended.unchanged, mended.rejected) == (1, 1, 1, 0)
    assert not shop.rejects.exists()
    assert rows(jobs, ORDERS) == [(2, 5), (3, 6), (4, 8)]
    # Only line 4 is written again: of the two orders before, one is unchanged.
    assert len(set(before) & set(rows(jobs, VERSIONS))) == len(before) - 1


def test_rows_no_longer_in_the_file_are_removed_with_their_customers_and_venues(
    shop: Shop, jobs: psycopg.Connection
) -> None:
    header = "customer,time,amount,venue"
    shop.load(f"{header}\nc1,2025-01-01,5,Hall\nc2,2025-01-01,5,Attic\n")
    report = shop.load(f"{header}\nc1,2025-01-01,5,Hall\n")
    assert (report.removed, report.unchanged) == (1, 1)
    assert rows(jobs, "SELECT external_id FROM source.customers") == [("c1",)]
    assert rows(jobs, "SELECT name FROM source.venues") == [("Hall",)]


def test_a_data_set_does_not_change_another_but_shares_its_customers(
    shop: Shop, jobs: psycopg.Connection
) -> None:
    shop.load(f"{HEADER}\nc1,2025-01-01,5\nc2,2025-01-01,6\n", dataset="north")
    report = shop.load(f"{HEADER}\nc1,2025-02-01,7\n", dataset="south")
    assert (report.inserted, report.removed, report.customers) == (1, 0, 1)
    assert rows(
        jobs,
        "SELECT external_id, count(*) FROM source.orders"
        " JOIN source.customers USING (customer_id) GROUP BY 1 ORDER BY 1",
    ) == [("c1", 2), ("c2", 1)]
    assert rows(jobs, "SELECT name FROM source.venues ORDER BY 1") == [("north",), ("south",)]


def test_ids_are_made_from_the_data_set_and_the_line(shop: Shop, jobs: psycopg.Connection) -> None:
    shop.load(f"{HEADER}\nc1,2025-01-01,5\n", dataset="north")
    ids = rows(jobs, "SELECT order_id, customer_id, venue_id FROM source.orders")
    # Fixed values, because a second load would not find its rows if the ids ever changed.
    assert [str(found) for found in ids[0]] == [
        "1a6cbba2-2550-5ef6-b2c0-5663aedbc97c",
        "3ed25041-a949-5cb2-b971-d1cd98594f92",
        "f7a69269-13ea-5038-b528-5603c7c64470",
    ]


def test_a_refunded_purchase_is_fully_refunded_when_it_was_made(
    shop: Shop, jobs: psycopg.Connection
) -> None:
    shop.load("customer,time,amount,status\nc1,2025-01-01,5,refunded\nc1,2025-01-02,6,paid\n")
    assert rows(
        jobs,
        "SELECT status, is_sale, refunded_at = ordered_at FROM source.orders ORDER BY status",
    ) == [("paid", True, None), ("refunded", True, True)]


def test_a_venues_currency_is_that_of_most_of_its_sales(
    shop: Shop, jobs: psycopg.Connection
) -> None:
    header = "customer,time,amount,status,currency"
    paid, cancelled = "c1,2025-01-01,5,paid,{}\n", "c1,2025-01-01,5,cancelled,{}\n"
    shop.load(f"{header}\n" + paid.format("JPY") * 2 + paid.format("EUR") * 2
              + cancelled.format("USD") * 5)  # fmt: skip
    assert rows(jobs, "SELECT currency FROM source.venues") == [("EUR",)]
    shop.load(f"{header}\n" + paid.format("JPY") * 2 + paid.format("EUR"))
    assert rows(jobs, "SELECT currency FROM source.venues") == [("JPY",)]


BROKEN = [
    (b"c1,2025-01-01", "missing fields"),
    (b"c1,2025-01-01,5,1,2", "extra fields"),
    (b",2025-01-01,5,1", "empty customer"),
    (b"c1,2025-01-01,,1", "empty amount"),
    (b"c1,2025-01-01,five,1", "unreadable amount"),
    (b"c1,2025-01-01,-5,1", "negative amount"),
    (b"c1,2025-01-01,NaN,1", "amount not finite"),
    (b"c1,2025-01-01,Infinity,1", "amount not finite"),
    (b"c1,2025-01-01,1e999,1", "unreadable amount"),
    (b"c1,2025-01-01,1.999,1", "too many decimals"),
    (b"c1,2025-01-01,99999999999,1", "amount too large"),
    (b'c1,2025-01-01,"5,00",1', "separator in amount"),
    (b"c1,2025-02-30,5,1", "impossible time"),
    (b"c1,,5,1", "empty time"),
    (b"c1,2999-01-01,5,1", "time in the future"),
    (b"c1,0001-01-01,5,1", "time too early"),
    (b"c1\xff,2025-01-01,5,1", "not UTF-8"),
    (b"c\0,2025-01-01,5,1", "NUL byte"),
    (b'"c1,2025-01-01,5,1', "bad quotes"),
    (b'c1,2025-01-01,5,"1', "bad quotes"),
    (b'c1",2025-01-01,5,1', "bad quotes"),
    (b'"c"1,2025-01-01,5,1', "bad quotes"),
    (b"c" * 70_000 + b",2025-01-01,5,1", "line too long"),
    (b"c" * 1_000 + b",2025-01-01,5,1", "customer too long"),
    (b"", "blank line"),
    (b"customer,time,amount,tickets", "header again"),
    (b"c1,2025-01-01,5,-1", "bad number of tickets"),
    (b"c1,2025-01-01,5,0.5", "bad number of tickets"),
    (b"\xff\xfe\x00,,,", "NUL byte"),
    (b"<html>", "missing fields"),
]


@pytest.mark.parametrize("between", [1, 0], ids=["among good rows", "one after another"])
def test_broken_rows_are_each_reported_and_all_others_are_loaded(
    shop: Shop, jobs: psycopg.Connection, between: int
) -> None:
    good = b'g1,2025-01-01,5,1\n"g,2","2025-01-02",6,"2"\n' * between
    lines = b"".join(good + broken + b"\n" for broken, _ in BROKEN)
    first, last = b"g3,2025-01-01,5,1\n", b'"g4",2025-01-01,"7",1\n'
    report = shop.load(b"customer,time,amount,tickets\n" + first + lines + last)

    step = 2 * between + 1
    expected = [(2 + step * (i + 1), kind) for i, (_, kind) in enumerate(BROKEN)]
    assert [(r.line, r.kind) for r in report.rejects] == expected
    assert report.rejected == len(BROKEN)
    assert report.loaded == 2 + 2 * between * len(BROKEN)
    assert report.rejected_by_kind["bad quotes"] == 4
    assert report.rows_read == report.loaded + report.rejected

    header, *written = shop.rows_in_rejects()
    assert header == ["line", "column", "value", "reason", "raw line"]
    assert [(int(line), column, value, reason) for line, column, value, reason, _ in written] == [
        (r.line, r.column or "", r.value, r.reason) for r in report.rejects
    ]
    assert written[0][4] == "c1,2025-01-01"
    assert written[16][4] == r"c1\xff,2025-01-01,5,1"


def test_more_rejects_than_are_shown_are_all_counted_and_written(shop: Shop) -> None:
    report = shop.load(f"{HEADER}\nc1,2025-01-01,5\n" + "c1,2025-01-01,x\n" * 60)
    assert (report.rejected, len(report.rejects)) == (60, 50)
    assert report.rejected_by_kind == {"unreadable amount": 60}
    assert len(shop.rows_in_rejects()) == 61
    assert (shop.load(f"{HEADER}\nc1,2025-01-01,5\nc1,x,5\n").rejected) == 1
    assert len(shop.rows_in_rejects()) == 2


def test_quoted_line_ends_and_windows_line_ends_are_accepted(
    shop: Shop, jobs: psycopg.Connection
) -> None:
    report = shop.load(
        f'\ufeff"note",{HEADER}\r\n'
        '"two\r\nlines, ""quoted""",c1,2025-01-01,5\r\n'
        ",c2,2025-01-01,6\r\n"
    )
    assert (report.loaded, report.rejected) == (2, 0)
    assert rows(jobs, ORDERS) == [(2, 5), (4, 6)]


def test_line_ends_of_old_spreadsheets_are_accepted(shop: Shop) -> None:
    assert shop.load(f"{HEADER}\rc1,2025-01-01,5\rc2,2025-01-01,6\r").loaded == 2


def test_blank_lines_before_the_header_and_at_the_end_are_accepted(
    shop: Shop, jobs: psycopg.Connection
) -> None:
    report = shop.load(f"\n \n{HEADER}\nc1,2025-01-01,5\n\n  \n\n")
    assert (report.rows_read, report.rejected) == (1, 0)
    assert rows(jobs, ORDERS) == [(4, 5)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_recognised_even_in_a_quoted_header(shop: Shop, delimiter: str) -> None:
    header = delimiter.join(['"Customer"', '"Time, local; or|UTC"', '"Amount"'])
    report = shop.load(
        f"{header}\n" + delimiter.join(["c1", "2025-01-01", "5"]) + "\n",
        columns=ColumnChoice(time="Time, local; or|UTC"),
    )
    assert report.loaded == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (f"{HEADER}\n".encode(), "has a header and no rows"),
        (f"{HEADER}\nc1,2025-01-01,5\n".encode("utf-16"), "is UTF-16"),
        (f"{HEADER}\nc1,2025-01-01,5\n".encode("utf-16-le"), "cannot be read .NUL byte"),
        ("customer,zeit,größe\n".encode("latin-1"), "cannot be read .not UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00", "cannot be read"),
        (b'"customer,time,amount\n', "cannot be read .bad quotes"),
        (b"c1,2025-01-01,5\nc2,2025-01-01,6\n", "looks like a row of data"),
        (b"customer,time\nc1,2025-01-01\n", "--amount-column"),
        (b"customer,time,amount,Amount\nc1,2025-01-01,5,5\n", "more than once"),
        (f"{HEADER}\nc1,01/02/2025,5\n".encode(), "None of the 1 rows can be loaded"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_clear_error_and_changes_nothing(
    shop: Shop, jobs: psycopg.Connection, content: bytes, message: str
) -> None:
    shop.load(f"{HEADER}\nc1,2025-01-01,5\n")
    before = rows(jobs, VERSIONS)
    with pytest.raises(LoadError, match=message):
        shop.load(content)
    assert rows(jobs, VERSIONS) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timezone": "Europe/Berlino"}, "Europe/Berlino.*--timezone"),
        ({"timezone": "../etc/passwd"}, "--timezone"),
        ({"currency": "EURO"}, "EURO.*--currency"),
        ({"dataset": " "}, "--dataset"),
        ({"dataset": "a\0b"}, "--dataset"),
        ({"columns": ColumnChoice(venue="hall")}, "--venue-column"),
    ],
)
def test_a_bad_option_is_named(shop: Shop, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        shop.load(f"{HEADER}\nc1,2025-01-01,5\n", **options)


def test_a_file_that_is_missing_or_would_be_overwritten_is_named(
    shop: Shop, jobs: psycopg.Connection, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"columns": ColumnChoice(), "now": NOW}
    with pytest.raises(LoadError, match="No such file"):
        load_orders(jobs, tmp_path / "none.csv", rejects=shop.rejects, **options)
    with pytest.raises(LoadError, match="is a folder"):
        load_orders(jobs, tmp_path, rejects=shop.rejects, **options)
    with pytest.raises(LoadError, match="overwrite"):
        shop.load(f"{HEADER}\nc1,2025-01-01,x\n", rejects=shop.file)
    assert shop.file.read_text() == f"{HEADER}\nc1,2025-01-01,x\n"


def test_progress_ends_with_the_whole_file(shop: Shop) -> None:
    seen: list[tuple[int, int]] = []
    shop.load(f"{HEADER}\nc1,2025-01-01,5\n", progress=lambda *bytes_: seen.append(bytes_))
    size = shop.file.stat().st_size
    assert seen[-1] == (size, size)
    assert all(0 <= done <= total == size for done, total in seen)


def test_another_tenants_rows_are_neither_seen_nor_touched(
    shop: Shop, jobs: psycopg.Connection, everything: psycopg.Connection
) -> None:
    everything.execute(
        "INSERT INTO csv.orders (order_id, tenant_id, venue_id, customer_id, ordered_at, amount,"
        " status, currency, dataset, file_line) SELECT gen_random_uuid(), %(other)s, %(other)s,"
        " %(other)s, '2025-01-01', 1, 'refunded', 'EUR', 'shop', 99",
        {"other": OTHER_TENANT},
    )
    everything.execute(
        "INSERT INTO csv.venues VALUES (%(other)s, %(other)s, 'theirs', 'UTC', 'EUR')",
        {"other": OTHER_TENANT},
    )
    everything.execute(
        "INSERT INTO csv.customers VALUES (%(other)s, %(other)s, 'theirs')", {"other": OTHER_TENANT}
    )
    shop.load(f"{HEADER}\nc1,2025-01-01,5\nc2,2025-01-01,5\n")
    assert shop.load(f"{HEADER}\nc1,2025-01-01,5\n").removed == 1
    for view in VIEWS:
        tenants = rows(jobs, f"SELECT DISTINCT tenant_id FROM source.{view.name}")  # noqa: S608
        assert tenants in ([], [(TENANT_ID,)]), view.name
    for table in ("orders", "customers", "venues"):
        count = f"SELECT count(*) FROM csv.{table} WHERE tenant_id <> %s"  # noqa: S608
        assert everything.execute(count.encode(), [TENANT_ID]).fetchone() == (1,), table


def test_the_lister_sees_every_tenants_venues_and_nothing_else(
    shop: Shop, database: Database, everything: psycopg.Connection
) -> None:
    everything.execute(
        "INSERT INTO csv.venues VALUES (%(other)s, %(other)s, 'theirs', 'UTC', 'EUR')",
        {"other": OTHER_TENANT},
    )
    shop.load(f"{HEADER}\nc1,2025-01-01,5\n")
    with database.superuser() as lister:
        lister.execute("SET ROLE analytics_lister")
        names = lister.execute("SELECT name FROM source.venues ORDER BY 1").fetchall()
        assert names == [("shop",), ("theirs",)]
        lister.execute(f"SET app.current_tenant_id = '{TENANT_ID}'".encode())
        for view in ("source.orders", "csv.orders", "csv.customers"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                lister.execute(f"SELECT FROM {view}".encode())


def test_the_adapter_runs_again_over_its_own_tables_and_keeps_their_rows(
    shop: Shop, jobs: psycopg.Connection, everything: psycopg.Connection
) -> None:
    shop.load(f"{HEADER}\nc1,2025-01-01,5\n")
    everything.execute("SET ROLE analytics_owner")
    everything.execute(_sql("adapters/csv.sql"))
    assert rows(jobs, ORDERS) == [(2, 5)]


def test_the_views_are_the_source_contract_and_read_with_the_readers_rights(
    everything: psycopg.Connection,
) -> None:
    for view in VIEWS:
        found = everything.execute(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = %s::regclass ORDER BY attnum",
            [f"source.{view.name}"],
        ).fetchall()
        assert dict(found) == view.columns, view.name
        options = everything.execute(
            "SELECT reloptions FROM pg_class WHERE oid = %s::regclass", [f"source.{view.name}"]
        ).fetchone()
        assert options == (["security_invoker=true"],), view.name
