"""What stands of a venue, and what that makes of an attempt: nothing to do, resume, or begin.

Asked under the locked fence, in the attempt's first transaction: whatever another attempt has
committed is seen, and nothing can change before this one ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from venue_analytics.harness.request import moment


@dataclass(frozen=True)
class Work:
    """What an attempt is to do.

    Attributes:
        as_of: what its results are as of.
        rules_hash: of the settings that shape them.
        force: whether it is done although it is done, and newer results are replaced.
        run: of its plan.
        batch: its batch.
        round: its batch's round.
        plan_number: later plans know better.
    """

    as_of: datetime
    rules_hash: str
    force: bool
    run: int
    batch: int
    round: int
    plan_number: int


@dataclass(frozen=True)
class Done:
    """The latest success by token.

    Attributes:
        as_of: of its results.
        rules_hash: of its settings.
        run: that did it.
        batch: of that run.
        round: of that batch.
        for_plan: the latest plan that made this very result, or found it done.
        same_venue: whether the venue is what it was then: of the same tenant, there or gone.
    """

    as_of: datetime
    rules_hash: str
    run: int
    batch: int
    round: int
    for_plan: int
    same_venue: bool = True


@dataclass(frozen=True)
class Checkpoint:
    """Unfinished work: the step to do next, and where in it."""

    as_of: datetime
    rules_hash: str
    round: int
    plan_number: int
    step: int
    cursor: Any


def reason_to_skip(work: Work, done: Done | None, checkpoint: Checkpoint | None) -> str | None:
    """Say on what proof nothing is to do; None if there is work.

    - *already done*: the latest success has this as_of and these rules, and was of the venue as it
      is now. An older equal one that was overwritten since is no proof. After somebody cleared a
      success, or under force, only a success of this very batch and round counts.
    - *newer results stand*: the latest success is of a later as_of, or of this as_of by the other
      rules of a later plan; unless forced.
    - While a checkpoint of other work stands, somebody has begun to overwrite that success:
      nothing counts.
    """
    if done is None:
        return None
    own, latest = (work.as_of, work.rules_hash), (done.as_of, done.rules_hash)
    if checkpoint is not None and (checkpoint.as_of, checkpoint.rules_hash) != latest:
        return None
    if latest == own:
        is_own = (done.run, done.batch) == (work.run, work.batch) and done.round >= work.round
        anybody_counts = work.round <= 1 and not work.force
        return "already done" if (is_own or anybody_counts) and done.same_venue else None
    if work.force:
        return None
    is_newer = done.as_of > work.as_of
    has_later_rules = done.as_of == work.as_of and done.for_plan > work.plan_number
    if is_newer or has_later_rules:
        rules = "" if is_newer else " by the settings of a later plan"
        return f"newer results stand, as of {moment(done.as_of)}{rules}; force replaces them"
    return None


def can_resume(work: Work, checkpoint: Checkpoint | None) -> bool:
    """Whether unfinished work is this very work, so that its steps need not be done again."""
    return checkpoint is not None and (
        (checkpoint.as_of, checkpoint.rules_hash, checkpoint.round)
        == (work.as_of, work.rules_hash, work.round)
    )
