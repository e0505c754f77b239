"""The units of a batch that are still to be processed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import timedelta
from itertools import chain
from uuid import UUID

from venue_analytics.harness import groups
from venue_analytics.harness.attempts import UnitAttempt
from venue_analytics.harness.history import Attempt


class UnitQueue:
    """Attempts in the order in which they are made; a unit that somebody else holds goes last."""

    def __init__(self, attempts: Iterable[UnitAttempt], last: Mapping[UUID, Attempt]) -> None:
        """Put the attempts in order.

        A unit that has killed its worker, or hung, must not keep others from their end again: it
        is alone from then on, and last once it has failed alone.

        Args:
            attempts: one a unit.
            last: the unit's last attempt in this round, if it did not end well.
        """
        queues: tuple[list[UnitAttempt], ...] = ([], [], [])
        for attempt in attempts:
            before = last.get(attempt.unit.id)
            attempt.is_alone = before is not None and not before.is_common
            place = 0 if before is None or not attempt.is_alone else 2 if before.alone else 1
            queues[place].append(attempt)
        self._left = deque(chain(*queues))
        # since when somebody else was seen to hold them
        self._waiting: dict[UUID, float] = {}

    def __bool__(self) -> bool:
        """Whether any attempt is left."""
        return bool(self._left)

    def take(self) -> list[UnitAttempt]:
        """Remove and return the next attempt, and with a small one the small ones behind it."""
        together = next(
            groups.cut(self._left, lambda a: a.unit, lambda a: None if a.is_alone else "together")
        )
        for _ in together:
            self._left.popleft()
        return together

    def take_all(self) -> list[UnitAttempt]:
        """Remove and return all that is left."""
        left = list(self._left)
        self._left.clear()
        return left

    def put_back(self, attempt: UnitAttempt) -> None:
        """Put an attempt behind all others."""
        self._left.append(attempt)

    def wait(self, attempt: UnitAttempt, limit: timedelta) -> bool:
        """Put an attempt back whose unit somebody holds; return False if that took too long."""
        now = time.monotonic()
        since = self._waiting.setdefault(attempt.unit.id, now)
        if now - since >= limit.total_seconds():
            return False
        self._left.append(attempt)
        return True

    def waits(self, attempt: UnitAttempt) -> bool:
        """Return whether somebody else was seen to hold the attempt's unit."""
        return attempt.unit.id in self._waiting

    def stop_waiting(self, attempt: UnitAttempt) -> None:
        """Forget that somebody else held the attempt's unit."""
        self._waiting.pop(attempt.unit.id, None)

    @property
    def is_held(self) -> bool:
        """Whether attempts are left, and every one of them waits for somebody else."""
        return bool(self._left) and all(self.waits(attempt) for attempt in self._left)
