"""Decide from a unit's history whether an attempt skips, resumes or starts.

History is read under the locked fence, in the attempt's first transaction: whatever another attempt
has committed is visible, and nothing can change before this transaction ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from venue_analytics.harness.moments import format_moment


@dataclass(frozen=True)
class Work:
    """What an attempt is asked to do.

    Attributes:
        as_of: what its results are as of.
        rules_hash: the hash of the settings that shape them.
        force: whether finished work is repeated, and newer results are replaced.
        plan: id of the run's plan; a later plan has a higher one, and takes precedence.
        batch: its batch.
        round: its batch's round.
    """

    as_of: datetime
    rules_hash: str
    force: bool
    plan: int
    batch: int
    round: int


@dataclass(frozen=True)
class Done:
    """The latest success of a unit, by token.

    Attributes:
        as_of: what its results are as of.
        rules_hash: the hash of the settings that shaped them.
        plan: the id of the plan whose run made it.
        batch: its batch in that plan.
        round: the round of that batch.
        for_plan: the latest plan that made this very result, or found it done.
        same_unit: whether the unit is what it was then: of the same tenant, there or gone.
    """

    as_of: datetime
    rules_hash: str
    plan: int
    batch: int
    round: int
    for_plan: int
    same_unit: bool = True


@dataclass(frozen=True)
class Checkpoint:
    """Unfinished work.

    Attributes:
        as_of: what its results are as of.
        rules_hash: the hash of the settings that shape them.
        round: the round of its batch.
        plan: the latest of the plans whose work it holds.
        done: the names of the steps that have committed.
        step: the step that the cursor is of; None without a cursor.
        cursor: where that step goes on.
        same_unit: whether the unit is of the same tenant as then.
    """

    as_of: datetime
    rules_hash: str
    round: int
    plan: int
    done: tuple[str, ...] = ()
    step: str | None = None
    cursor: Any = None
    same_unit: bool = True

    def after(self, step: str) -> Checkpoint:
        """Return it with one more step done."""
        if step != self.step:  # the cursor is of a step that another one was put before
            return replace(self, done=(*self.done, step))
        return replace(self, done=(*self.done, step), step=None, cursor=None)

    def within(self, step: str, cursor: Any) -> Checkpoint:
        """Return it with a piece of a step done."""
        return replace(self, step=step, cursor=cursor)

    def cursor_of(self, step: str) -> Any:
        """Return where a step goes on; None at its beginning."""
        return self.cursor if step == self.step else None


@dataclass(frozen=True)
class Decision:
    """What an attempt has to do: nothing, for a reason, or to go on from a checkpoint."""

    reason_to_skip: str | None
    checkpoint: Checkpoint
    resumes: bool = False


def decide(work: Work, done: Done | None, checkpoint: Checkpoint | None) -> Decision:
    """Decide what an attempt has to do. Resumed work is credited to the later plan."""
    reason = reason_to_skip(work, done, checkpoint)
    if checkpoint is not None and can_resume(work, checkpoint):
        return Decision(reason, replace(checkpoint, plan=max(checkpoint.plan, work.plan)), True)
    return Decision(reason, Checkpoint(work.as_of, work.rules_hash, work.round, work.plan))


def reason_to_skip(work: Work, done: Done | None, checkpoint: Checkpoint | None) -> str | None:
    """Return why there is nothing to do; None if there is work.

    - *already done*: the latest success has this as_of and these rules, and was of the unit as it
      is now. An older equal success that was overwritten since is no proof. After somebody cleared
      a success, or under force, only a success of this very batch and round counts.
    - *newer results stand*: the latest success is of a later as_of, or has this as_of but was
      computed under a later plan's different rules; unless forced.
    - While a checkpoint of other work stands, somebody has begun to overwrite that success:
      nothing counts.
    """
    if done is None:
        return None
    own, latest = (work.as_of, work.rules_hash), (done.as_of, done.rules_hash)
    if checkpoint is not None and (checkpoint.as_of, checkpoint.rules_hash) != latest:
        return None
    if latest == own:
        is_own = (done.plan, done.batch) == (work.plan, work.batch) and done.round >= work.round
        anybody_counts = work.round <= 1 and not work.force
        return "already done" if (is_own or anybody_counts) and done.same_unit else None
    if work.force:
        return None
    is_newer = done.as_of > work.as_of
    has_later_rules = done.as_of == work.as_of and done.for_plan > work.plan
    if is_newer or has_later_rules:
        rules = "" if is_newer else " by the settings of a later plan"
        return f"newer results stand, as of {format_moment(done.as_of)}{rules}; force replaces them"
    return None


def can_resume(work: Work, checkpoint: Checkpoint) -> bool:
    """Return whether unfinished work is the same work, so that its steps need no repeating."""
    begun = (checkpoint.as_of, checkpoint.rules_hash, checkpoint.round)
    return checkpoint.same_unit and begun == (work.as_of, work.rules_hash, work.round)
