"""Steps by name: unfinished work resumes at the right step after a job's steps were changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.harness.runner import Runner
from tests.harness.simple_venues import ARENA

from venue_analytics.harness import (
    Continue,
    Job,
    TransientError,
    UnitResult,
    UnitRun,
    VenueSettings,
)

ONLY_ARENA = {"venues": [str(ARENA.id)]}
Run = UnitRun[VenueSettings]


class Walk:
    """Versions of one job whose steps differ; it records each step that runs."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        #: The cursor that each step received.
        self.cursors: list[tuple[str, Any]] = []
        #: The step that fails, and its piece.
        self.broken: tuple[str, int] | None = None

    def job(self, *names: str, pieces: int = 1) -> Job[VenueSettings]:
        """Return the job with these steps; `count` runs in that many pieces."""
        steps = {
            name: self._step(name, names[-1], pieces if name == "count" else 1) for name in names
        }
        return Job("walk", VenueSettings, steps, lambda *_: 0, lambda *_: [])

    def _step(self, name: str, last: str, pieces: int) -> Callable[[Run], Any]:
        def step(run: Run) -> UnitResult | Continue | None:
            piece = 0 if run.cursor is None else run.cursor["piece"]
            self.cursors.append((name, run.cursor))
            if self.broken == (name, piece):
                raise TransientError("not yet")
            self.steps.append(name)
            if piece + 1 < pieces:
                return Continue({"piece": piece + 1})
            return UnitResult() if name == last else None

        return step


@pytest.mark.parametrize(
    ("names", "walked"),
    [
        pytest.param(("count", "rank", "publish"), ["rank", "publish"], id="unchanged"),
        pytest.param(("rank", "count", "publish"), ["rank", "publish"], id="reordered"),
        pytest.param(
            ("load", "count", "rank", "publish"), ["load", "rank", "publish"], id="inserted before"
        ),
        pytest.param(
            ("count", "load", "rank", "publish"), ["load", "rank", "publish"], id="inserted after"
        ),
        pytest.param(
            ("rank", "publish"), ["rank", "publish"], id="the step that was done is removed"
        ),
        pytest.param(("count", "publish"), ["publish"], id="the next step is removed"),
        pytest.param(
            ("rank", "count"), ["rank", "count"], id="the step that was done is now the last"
        ),
        pytest.param(("count",), ["count"], id="the step that was done is now the only one"),
    ],
)
def test_a_retry_resumes_at_the_right_step_after_the_steps_were_changed(
    runner: Runner, names: tuple[str, ...], walked: list[str]
) -> None:
    walk = Walk()
    before = walk.job("count", "rank", "publish")
    run = runner.plan(before, conf=ONLY_ARENA)
    walk.broken = ("rank", 0)
    assert runner.process(before, run) == ["Arena: not yet"]
    assert walk.steps == ["count"]
    walk.broken = None
    walk.steps.clear()
    after = walk.job(*names)
    assert runner.process(after, run, try_number=2) == []
    assert walk.steps == walked
    assert runner.finish(after, run) == []
    assert runner.connection.execute("SELECT FROM jobs.checkpoint").fetchall() == []


@pytest.mark.parametrize(
    ("names", "cursors"),
    [
        pytest.param(
            ("count", "rank"),
            [("count", {"piece": 1}), ("count", {"piece": 2}), ("rank", None)],
            id="unchanged",
        ),
        pytest.param(
            ("load", "count", "rank"),
            [
                ("load", None),
                ("count", {"piece": 1}),
                ("count", {"piece": 2}),
                ("rank", None),
            ],
            id="another step comes first",
        ),
        pytest.param(("rank",), [("rank", None)], id="its step is removed"),
        pytest.param(("recount", "rank"), [("recount", None), ("rank", None)], id="renamed"),
    ],
)
def test_a_cursor_is_passed_only_to_its_own_step(
    runner: Runner, names: tuple[str, ...], cursors: list[tuple[str, Any]]
) -> None:
    walk = Walk()
    before = walk.job("count", "rank", pieces=3)
    run = runner.plan(before, conf=ONLY_ARENA)
    walk.broken = ("count", 1)
    assert runner.process(before, run) == ["Arena: not yet"]
    walk.broken = None
    walk.cursors.clear()
    assert runner.process(walk.job(*names, pieces=3), run, try_number=2) == []
    assert walk.cursors == cursors
