"""Splitting a file into records: the rows around a broken one are always read."""

import csv
from io import StringIO

from hypothesis import given
from hypothesis import strategies as st

from venue_analytics.database.purchases.records import (
    MAX_LINE_CHARACTERS,
    MAX_LINES_OF_RECORD,
    Record,
    read_lines,
    read_records,
)

WIDTH = 3


def read(text: str, delimiter: str = ",") -> list[Record]:
    def is_plausible(fields: list[str], several_lines: bool) -> bool:
        return len(fields) == WIDTH and (several_lines or fields[2].strip().isdigit())

    return list(read_records(read_lines(StringIO(text, "\n")), delimiter, is_plausible))


def fields(text: str) -> list[list[str]]:
    return [record.fields for record in read(text)]


def test_a_quoted_field_may_hold_delimiters_quotes_and_line_ends() -> None:
    text = 'a,"x, ""y""\r\nz",1\r\nb,c,2\r\n'
    records = read(text)
    assert [r.fields for r in records] == [["a", 'x, "y"\r\nz', "1"], ["b", "c", "2"]]
    assert [r.line for r in records] == [1, 3]
    assert records[0].raw == 'a,"x, ""y""\r\nz",1'


def test_the_last_line_of_a_record_may_look_like_a_row() -> None:
    assert fields('"x\ny",b,1\nc,d,2\n') == [["x\ny", "b", "1"], ["c", "d", "2"]]


def test_an_open_quote_spoils_only_its_own_line() -> None:
    records = read('a,x,1\nb,"y,2\nc,z,3\nd,z,4\n')
    assert [(r.line, r.problem is None) for r in records] == [
        (1, True),
        (2, False),
        (3, True),
        (4, True),
    ]
    assert records[1].raw == 'b,"y,2'


def test_an_open_quote_is_not_closed_by_a_quote_further_down() -> None:
    # By the rules of CSV, the field would end in line 4, and lines 1 to 4 would be one good record.
    text = 'b,"y,2\nc,z,3\nd,z,4\ne",5\nf,z,6\n'
    assert next(csv.reader(StringIO(text), strict=True))[2] == "5"
    records = read(text)
    assert [r.line for r in records if r.problem] == [1]
    assert [r.fields for r in records if not r.problem] == [
        ["c", "z", "3"],
        ["d", "z", "4"],
        ['e"', "5"],
        ["f", "z", "6"],
    ]


def test_an_open_quote_does_not_end_in_a_good_row_with_its_own_quotes() -> None:
    records = read('a,"x,1\nb,",",2\nc,y,3\n')
    assert [r.line for r in records if r.problem] == [1]
    assert [r.fields for r in records if not r.problem] == [["b", ",", "2"], ["c", "y", "3"]]


def test_open_quotes_in_consecutive_lines_spoil_one_line_each() -> None:
    records = read('a,"x,1\n' * 5 + "b,y,2\n")
    assert [bool(r.problem) for r in records] == [True] * 5 + [False]


def test_a_record_of_more_lines_than_the_window_counts_as_an_open_quote() -> None:
    def record_of(lines: int) -> str:
        return 'a,"x' + "\nx" * (lines - 1) + '",1\n'

    assert len(read(record_of(MAX_LINES_OF_RECORD))) == 1
    assert read(record_of(MAX_LINES_OF_RECORD + 1))[0].problem is not None


def test_an_overlong_line_is_cut_and_the_next_one_is_read() -> None:
    exact = "a,b," + "1" * (MAX_LINE_CHARACTERS - 5)
    long = "a,b," + "1" * (3 * MAX_LINE_CHARACTERS)
    records = read(f"{exact}\n{long}\na,b,2\n")
    assert [r.problem[0] if r.problem else None for r in records] == [None, "line too long", None]
    assert [r.line for r in records] == [1, 2, 3]
    assert len(records[1].raw) == MAX_LINE_CHARACTERS


def test_a_nul_byte_spoils_only_its_own_line_even_inside_quotes() -> None:
    records = read('a,b\0,1\na,"b\nc\0d",2\na,b,3\n')
    assert [r.problem[0] if r.problem else None for r in records] == [
        "NUL byte",
        "bad quotes",
        "NUL byte",
        None,
    ]


def test_the_last_line_needs_no_end() -> None:
    assert fields("a,b,1\nc,d,2") == [["a", "b", "1"], ["c", "d", "2"]]


@given(
    st.lists(
        st.lists(st.text(st.sampled_from('ab,"\n é'), max_size=6), min_size=WIDTH, max_size=WIDTH),
        max_size=8,
    )
)
def test_the_output_of_a_csv_writer_is_read_back(rows: list[list[str]]) -> None:
    # The last field shows that a line inside a field is not a row by itself.
    rows = [[first, second, f"{third}!"] for first, second, third in rows]
    text = StringIO(newline="")
    csv.writer(text).writerows(rows)
    assert fields(text.getvalue()) == rows


@given(st.text(st.sampled_from('a1,"\n\0\r'), max_size=60))
def test_no_text_stops_the_reading_and_no_line_is_lost(text: str) -> None:
    records = read(text)
    expected = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n") if text]
    got = [line.rstrip("\r") for record in records for line in record.raw.split("\n")]
    assert got == expected
