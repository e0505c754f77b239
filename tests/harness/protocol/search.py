"""A breadth-first search through all states of a model, and back from its ends."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from tests.harness.protocol.model import Model, State, ViolationError


class Found(NamedTuple):
    """The number of states; if a property is violated, also which one and the trace to it."""

    states: int
    violated: str | None = None
    trace: tuple[str, ...] = ()


def explore(model: Model, *, most: int = 0, to_the_end: bool = True) -> Found:
    """Visit every reachable state, the nearest first.

    Args:
        model: the model to search.
        most: the number of states after which the search stops; 0 means never.
        to_the_end: whether an end must be reachable from every state without more faults (P8).
    """
    begin = model.initial()
    ids: dict[int, int] = {hash(begin): 0}
    parent, how = array("q", [-1]), [""]
    before, after = array("q"), array("q")
    ends: list[int] = []
    frontier: list[tuple[int, State]] = [(0, begin)]
    labels: dict[str, str] = {}

    def trace(number: int) -> tuple[str, ...]:
        steps = []
        while number > 0:
            steps.append(how[number])
            number = parent[number]
        return tuple(reversed(steps))

    while frontier:
        found = []
        for number, state in frontier:
            try:
                if model.ended(state):
                    ends.append(number)
                for label, is_free, following in model.successors(state):
                    known = ids.get(hash(following))
                    if known is None:
                        known = ids[hash(following)] = len(how)
                        parent.append(number)
                        how.append(labels.setdefault(label, label))
                        model.invariant(following)
                        found.append((known, following))
                    if is_free and to_the_end:
                        before.append(number)
                        after.append(known)
            except ViolationError as error:
                return Found(len(how), str(error), (*trace(number), "and then"))
        frontier = found
        if most and len(how) > most:
            return Found(len(how))
    if to_the_end:
        stuck = _without_an_end(len(how), before, after, ends)
        if stuck is not None:
            return Found(len(how), "P8: no end can be reached from here", trace(stuck))
    return Found(len(how))


def _without_an_end(
    states: int, before: array[int], after: array[int], ends: list[int]
) -> int | None:
    """Return the first state from which no end can be reached."""
    leading_to: dict[int, list[int]] = {}
    for one, following in zip(before, after, strict=True):
        leading_to.setdefault(following, []).append(one)
    can_end, stack = bytearray(states), list(ends)
    for number in ends:
        can_end[number] = 1
    while stack:
        for one in leading_to.get(stack.pop(), ()):
            if not can_end[one]:
                can_end[one] = 1
                stack.append(one)
    return None if all(can_end) else can_end.index(0)
