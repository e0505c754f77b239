"""The deadline of a run: how long after its interval's start, and who says that it has passed.

Airflow's triggerer imports this module and calls `tell_missed`: it imports no Airflow, and little.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

from croniter import croniter

log = logging.getLogger(__name__)

#: Enough to see weekdays, months and leap years; where clocks change, two nights of a year differ.
MOMENTS_LOOKED_AT = 60
MOMENTS_WHERE_CLOCKS_CHANGE = 400
LOOKED_AT = timedelta(days=12 * 366)
#: From a fixed day on: what Airflow stores of a DAG must not change from parse to parse.
BEGIN, MIDSUMMER = datetime(2026, 1, 1), datetime(2026, 7, 1)  # noqa: DTZ001  any zone's own clock
#: A schedule with more lengths than this has its deadline in the commonest intervals alone.
MOST_LENGTHS = 8


@lru_cache(maxsize=64)
def interval_lengths(cron: str, timezone: str) -> tuple[timedelta, ...]:
    """Give the lengths that the intervals between a schedule's moments have, the commonest first.

    Args:
        cron: a valid expression of five fields.
        timezone: the IANA zone that it is read in.
    """
    zone = ZoneInfo(timezone)
    clocks_change = zone.utcoffset(BEGIN) != zone.utcoffset(MIDSUMMER)
    looked_at = MOMENTS_WHERE_CLOCKS_CHANGE if clocks_change else MOMENTS_LOOKED_AT
    moments = islice(_moments(cron, zone), looked_at)
    counts: dict[timedelta, int] = {}
    for begin, end in pairwise(moments):
        if end > begin:
            counts[end - begin] = counts.get(end - begin, 0) + 1
    commonest = sorted(counts, key=lambda length: (-counts[length], length))
    return tuple(commonest[:MOST_LENGTHS])


async def tell_missed(*, job: str, deadline_minutes: int, context: Mapping[str, Any]) -> None:
    """Log one error line: a scheduled run has not ended well by its deadline.

    Nothing is said of a run that was queued after its deadline (the first one after unpausing),
    nor of one that no schedule has made: backfills are of old nights. Called twice, it says the
    same twice.

    Args:
        job: the job.
        deadline_minutes: how long after the end of its interval a run should have ended.
        context: Airflow's, with `dag_run` and `deadline`.
    """
    run, passed = context["dag_run"], _moment(context["deadline"]["deadline_time"])
    if run["run_type"] != "scheduled":
        return
    deadline = _moment(run["data_interval_end"]) + timedelta(minutes=deadline_minutes)
    if passed != deadline or _moment(run["queued_at"]) > deadline:
        return
    log.error(
        "%s: run %s has missed its deadline, %s (%d minutes after the end of its interval); "
        "it is %s",
        job,
        run["dag_run_id"],
        deadline.isoformat(timespec="minutes"),
        deadline_minutes,
        run["state"],
    )


def _moments(cron: str, zone: ZoneInfo) -> Iterator[datetime]:
    for moment in croniter(cron, BEGIN, ret_type=datetime).all_next():
        if moment > BEGIN + LOOKED_AT:
            return
        yield moment.replace(tzinfo=zone).astimezone(UTC)


def _moment(value: datetime | str) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
