"""Read a CSV file record by record; a malformed record does not affect its neighbours."""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TextIO

# Bounds on memory use. A quoted field that does not end within them counts as an unclosed quote.
MAX_LINE_CHARACTERS = 65_536
MAX_LINES_OF_RECORD = 100

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}

# A byte that is not UTF-8, as surrogateescape decodes it.
UNDECODABLE = re.compile("[\udc80-\udcff]")


class Line(NamedTuple):
    """A physical line with its line end; `cut` means that it was too long and was truncated."""

    number: int
    text: str
    cut: bool


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the file, or the text of a malformed one.

    Attributes:
        line: the line where it begins; the file's first line is 1.
        raw: its text in the file, without the last line end.
        fields: the values of its columns.
        problem: a kind and a reason, if the text cannot be split into fields.
    """

    line: int
    raw: str
    fields: list[str]
    problem: tuple[str, str] | None = None


def read_lines(text: TextIO) -> Iterator[Line]:
    """Yield the physical lines, each cut to MAX_LINE_CHARACTERS."""
    number = 0
    while line := text.readline(MAX_LINE_CHARACTERS):
        number += 1
        cut = len(line) == MAX_LINE_CHARACTERS and line[-1] not in "\r\n"
        rest = line
        while cut and len(rest) == MAX_LINE_CHARACTERS and rest[-1] not in "\r\n":
            rest = text.readline(MAX_LINE_CHARACTERS)
        yield Line(number, line, cut)


def read_records(
    lines: Iterable[Line], delimiter: str, is_plausible: Callable[[list[str], bool], bool]
) -> Iterator[Record]:
    """Yield the records of the lines; a blank line is a record without fields.

    A quoted field may contain line ends. `is_plausible` checks such a record. It is called with:

    - the fields of the whole record, and True: it must hold;
    - the fields of each line inside the record, parsed alone, and False: it must not hold, since
      an unclosed quote may have swallowed valid rows.

    If a check fails, only the first line is malformed, and reading continues with the next line.
    """
    source = iter(lines)
    ahead: deque[Line] = deque()
    while line := (ahead.popleft() if ahead else next(source, None)):
        raw = line.text.rstrip("\r\n")
        problem = _unreadable(line)
        if problem is not None:
            yield Record(line.number, raw, [], problem)
        elif '"' not in raw:
            yield Record(line.number, raw, raw.split(delimiter) if raw.strip() else [])
        else:
            yield _quoted(line, ahead, source, delimiter, is_plausible)


def _unreadable(line: Line) -> tuple[str, str] | None:
    if line.cut:
        return "line too long", f"is longer than {MAX_LINE_CHARACTERS:,} characters"
    if "\0" in line.text:
        return "NUL byte", "contains a NUL byte"
    return None


def _quoted(
    first: Line,
    ahead: deque[Line],
    source: Iterator[Line],
    delimiter: str,
    is_plausible: Callable[[list[str], bool], bool],
) -> Record:
    """Return the record that begins with this line; lines read but not used stay in `ahead`."""

    def window() -> Iterator[str]:
        yield first.text
        for position in range(MAX_LINES_OF_RECORD - 1):
            if position == len(ahead):
                following = next(source, None)
                if following is None:
                    return
                ahead.append(following)
            if _unreadable(ahead[position]):
                return
            yield ahead[position].text

    reader = csv.reader(window(), delimiter=delimiter, strict=True)
    try:
        fields = next(reader)
    except (csv.Error, StopIteration):
        return _badly_quoted(first)
    inside = reader.line_num - 1
    if inside:
        swallowed = (_alone(ahead[i].text, delimiter) for i in range(inside))
        if not is_plausible(fields, True) or any(is_plausible(f, False) for f in swallowed if f):
            return _badly_quoted(first)
    raw = first.text + "".join(ahead.popleft().text for _ in range(inside))
    return Record(first.number, raw.rstrip("\r\n"), fields)


def _alone(text: str, delimiter: str) -> list[str]:
    """Return the fields of a line parsed alone; none if its quotes are unbalanced."""
    if text.count('"') % 2:
        return []
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return []


def _badly_quoted(line: Line) -> Record:
    reason = (
        'has a quote (") that is not closed, or closed before the end of its field; '
        'a quote inside a quoted field is written ""'
    )
    return Record(line.number, line.text.rstrip("\r\n"), [], ("bad quotes", reason))
