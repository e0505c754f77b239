"""Moments: how they are read from people, and written for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator

#: No sale is older; earlier years come near the end of what databases and clocks can count.
EARLIEST = 1970


def parse_moment(value: object) -> object:
    """Return a moment written in ISO 8601, in UTC unless it names an offset.

    Raises:
        ValueError: it is none, or too old.
    """
    if value is None or isinstance(value, datetime):
        return value
    try:
        read = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(
            "must be an ISO date or timestamp such as 2026-03-01 or 2026-03-01T02:00:00+01:00"
        ) from None
    if read.year < EARLIEST:
        raise ValueError(f"must be a moment of the year {EARLIEST} or later")
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def format_moment(moment: datetime) -> str:
    """Return a moment for people, to the second."""
    return moment.isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")


#: A moment that a person may write as a date or a timestamp.
Moment = Annotated[AwareDatetime, BeforeValidator(parse_moment)]
