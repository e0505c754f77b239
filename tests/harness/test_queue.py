"""The queue of a batch: whom it waits for, and when it is done."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from tests.harness.simple_venues import ARENA, BALLROOM

from venue_analytics.harness.queue import UnitQueue

LONG, NOT_AT_ALL = timedelta(hours=1), timedelta()


def attempt_at(unit: Any) -> Any:
    return SimpleNamespace(unit=unit, is_alone=False)


def test_it_is_held_only_if_every_attempt_waits() -> None:
    arena, ballroom = attempt_at(ARENA), attempt_at(BALLROOM)
    queue = UnitQueue([arena, ballroom], {})
    assert queue.take() == [arena, ballroom]
    assert not queue.is_held
    assert queue.wait(arena, LONG)
    assert queue.is_held
    queue.put_back(ballroom)
    assert not queue.is_held


def test_a_wait_begins_anew_once_a_unit_was_free() -> None:
    arena = attempt_at(ARENA)
    queue = UnitQueue([], {})
    assert queue.wait(arena, LONG)
    assert not queue.wait(arena, NOT_AT_ALL)
    assert queue.waits(arena)
    queue.stop_waiting(arena)
    assert not queue.waits(arena)
