"""The deadline of a run, `deadline_minutes` after the end of its interval.

Airflow counts from the start of the interval, so the lengths of a schedule's intervals are needed.
The triggerer imports this module to call `report_missed`, so it imports little and no Airflow.
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

#: Enough to cover weekdays, months and leap years; with clock changes, two nights a year differ.
MOMENTS_LOOKED_AT = 60
MOMENTS_WHERE_CLOCKS_CHANGE = 400
LOOKED_AT = timedelta(days=12 * 366)
#: Fixed, so that the DAG that Airflow stores does not change between parses.
BEGIN, MIDSUMMER = datetime(2026, 1, 1), datetime(2026, 7, 1)  # noqa: DTZ001  any zone's own clock
#: A schedule with more lengths than this has a deadline only in the most common intervals.
MOST_LENGTHS = 8


@lru_cache(maxsize=64)
def interval_lengths(cron: str, timezone: str) -> tuple[timedelta, ...]:
    """Return the lengths of a schedule's intervals, the most common first.

    Args:
        cron: a valid expression of five fields.
        timezone: the IANA zone of the expression.
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


async def report_missed(*, job: str, deadline_minutes: int, context: Mapping[str, Any]) -> None:
    """Log an error: a scheduled run did not end well by its deadline.

    It ignores:

    - a run queued after its deadline, such as the first one after unpausing;
    - a run that is not scheduled: backfills, for example, are of old nights.

    If it is called twice, it logs twice.

    Args:
        job: the name of the job.
        deadline_minutes: the deadline, in minutes after the end of the run's interval.
        context: Airflow's context, with `dag_run` and `deadline`.
    """
    run, passed = context["dag_run"], _as_datetime(context["deadline"]["deadline_time"])
    if run["run_type"] != "scheduled":
        return
    deadline = _as_datetime(run["data_interval_end"]) + timedelta(minutes=deadline_minutes)
    if passed != deadline or _as_datetime(run["queued_at"]) > deadline:
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


def _as_datetime(value: datetime | str) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
