"""A CSV file's records, one at a time: a broken one never takes its neighbours with it."""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TextIO

# Bounds on what is held in memory. A quoted field that does not end within them is taken for a
# quote that somebody forgot to close.
MAX_LINE_CHARACTERS = 65_536
MAX_LINES_OF_RECORD = 100

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}

# What decoding by surrogateescape makes of a byte that is not UTF-8.
UNDECODABLE = re.compile("[\udc80-\udcff]")


class Line(NamedTuple):
    """A physical line, its end included; `cut` = it was longer than is read."""

    number: int
    text: str
    cut: bool


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the file, or what is known of it where `problem` says why it is none.

    Attributes:
        line: where it begins; the file's first line is 1.
        raw: as it stands in the file, without the end of its last line.
        fields: what the columns hold.
        problem: a kind and a reason, if the text cannot be split into fields.
    """

    line: int
    raw: str
    fields: list[str]
    problem: tuple[str, str] | None = None


def read_lines(text: TextIO) -> Iterator[Line]:
    """Physical lines; of one that is longer than MAX_LINE_CHARACTERS only the beginning."""
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
    """Records of the lines; blank lines are records with no fields.

    A quoted field may hold line ends. If it does, the record is believed only where `is_plausible`
    agrees, which gets the fields and whether they are those of a record over several lines
    (True), or those of one of the lines inside it, read alone (False): a line that is a good row by
    itself was swallowed by a quote left open. Then the first line alone is bad, and reading goes
    on behind it.
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
        return "NUL byte", "holds a NUL byte"
    return None


def _quoted(
    first: Line,
    ahead: deque[Line],
    source: Iterator[Line],
    delimiter: str,
    is_plausible: Callable[[list[str], bool], bool],
) -> Record:
    """The record that begins with this line; lines looked at and not used stay in `ahead`."""

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
    """The fields of a line by itself, none if it has no whole number of pairs of quotes."""
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
