"""Standing: which proof lets a venue be skipped, and whose unfinished work is resumed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from venue_analytics.harness.standing import (
    Checkpoint,
    Done,
    Work,
    decide,
    reason_to_skip,
)

TONIGHT = datetime(2026, 3, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)

#: A first try of batch 0 of plan 40.
WORK = Work(TONIGHT, "rules", False, plan=40, batch=0, round=1)
#: Another run's success for the same night, by the same rules.
DONE = Done(TONIGHT, "rules", plan=39, batch=3, round=1, for_plan=39)
OWN = replace(DONE, plan=40, batch=0, for_plan=40)
BEGUN = Checkpoint(TONIGHT, "rules", round=1, plan=40, done=("count",))

REDO = replace(WORK, round=2)
FORCED = replace(WORK, force=True)
LATER = replace(DONE, as_of=TONIGHT + DAY)
EARLIER = replace(DONE, as_of=TONIGHT - DAY)
OTHER_RULES = replace(DONE, rules_hash="other rules")
BY_A_LATER_PLAN = replace(OTHER_RULES, for_plan=41)


@pytest.mark.parametrize(
    ("work", "done", "checkpoint", "reason"),
    [
        pytest.param(WORK, None, None, None, id="never done"),
        pytest.param(WORK, None, BEGUN, None, id="never done, begun"),
        pytest.param(WORK, DONE, None, "already done", id="done by another run"),
        pytest.param(WORK, OWN, None, "already done", id="done by this batch"),
        pytest.param(REDO, DONE, None, None, id="cleared: another's success does not count"),
        pytest.param(REDO, OWN, None, None, id="cleared: the last round's success does not count"),
        pytest.param(
            REDO, replace(OWN, round=2), None, "already done", id="cleared, done in this round"
        ),
        pytest.param(
            REDO, replace(OWN, round=3), None, "already done", id="cleared, done in a later round"
        ),
        pytest.param(
            REDO, replace(OWN, round=2, batch=1), None, None, id="cleared: not another batch's"
        ),
        pytest.param(
            REDO, replace(OWN, round=2, plan=39), None, None, id="cleared: not another run's"
        ),
        pytest.param(FORCED, DONE, None, None, id="forced: another's success does not count"),
        pytest.param(FORCED, OWN, None, "already done", id="forced, done by this batch"),
        pytest.param(WORK, EARLIER, None, None, id="done for an earlier night"),
        pytest.param(WORK, LATER, None, "newer results stand", id="done for a later night"),
        pytest.param(
            REDO, LATER, None, "newer results stand", id="cleared, done for a later night"
        ),
        pytest.param(FORCED, LATER, None, None, id="forced over a later night"),
        pytest.param(WORK, OTHER_RULES, None, None, id="an earlier plan's rules"),
        pytest.param(
            WORK, replace(OTHER_RULES, for_plan=40), None, None, id="this plan's other rules"
        ),
        pytest.param(WORK, BY_A_LATER_PLAN, None, "newer results stand", id="a later plan's rules"),
        pytest.param(
            replace(WORK, force=True), BY_A_LATER_PLAN, None, None, id="forced over a later plan"
        ),
        pytest.param(
            WORK, replace(EARLIER, for_plan=41), None, None, id="a later plan's earlier night"
        ),
        pytest.param(WORK, DONE, BEGUN, "already done", id="begun again, by the same rules"),
        pytest.param(
            WORK,
            DONE,
            replace(BEGUN, rules_hash="other rules"),
            None,
            id="half overwritten by other rules",
        ),
        pytest.param(
            WORK,
            LATER,
            replace(BEGUN, as_of=TONIGHT - DAY),
            None,
            id="later night half overwritten",
        ),
        pytest.param(WORK, LATER, BEGUN, None, id="later night half overwritten by this work"),
    ],
)
def test_a_venue_is_skipped_only_on_proof(
    work: Work, done: Done | None, checkpoint: Checkpoint | None, reason: str | None
) -> None:
    answer = reason_to_skip(work, done, checkpoint)
    assert (answer or "").split(",")[0] == (reason or "")


def test_the_reason_names_the_night_of_the_results_and_how_to_replace_them() -> None:
    assert reason_to_skip(WORK, LATER, None) == (
        "newer results stand, as of 2026-03-02 02:00:00 UTC; force replaces them"
    )
    assert reason_to_skip(WORK, BY_A_LATER_PLAN, None) == (
        "newer results stand, as of 2026-03-01 02:00:00 UTC by the settings of a later plan; "
        "force replaces them"
    )


@pytest.mark.parametrize(
    ("checkpoint", "resumes"),
    [
        (None, False),
        (BEGUN, True),
        (replace(BEGUN, plan=12), True),
        (replace(BEGUN, plan=99).within("rank", {"piece": 1}), True),
        (replace(BEGUN, as_of=TONIGHT - DAY), False),
        (replace(BEGUN, rules_hash="other rules"), False),
        (replace(BEGUN, round=2), False),
        (replace(BEGUN, same_unit=False), False),
    ],
)
def test_unfinished_work_is_resumed_only_if_it_is_the_same_work(
    checkpoint: Checkpoint | None, resumes: bool
) -> None:
    decision = decide(WORK, None, checkpoint)
    assert decision.resumes is resumes
    if checkpoint is not None and resumes:
        # it counts as the work of the later of the two plans
        assert decision.checkpoint == replace(checkpoint, plan=max(checkpoint.plan, WORK.plan))
    else:
        assert decision.checkpoint == Checkpoint(TONIGHT, "rules", round=1, plan=WORK.plan)


# against the model of the protocol ---------------------------------------------------------


class Row(NamedTuple):
    """A row of history in the model."""

    tok: int
    pid: tuple[int, int]
    as_of: int
    rules: int
    rnd: int
    seq: int
    out: str


class Asking(NamedTuple):
    """A process of the model that asks, of a run that may be forced."""

    pid: tuple[int, int]
    as_of: int
    rules: int
    rnd: int
    force: bool

    @property
    def seq(self) -> int:
        """Return the number of its plan, which is the plan's id."""
        return self.pid[0]


def verdict(p: Asking, rows: list[Row], ckpt: tuple[int, int] | None) -> str | None:
    """Return what the model's `verdict` returns: a copy of it without the mutations."""
    good = [w for w in rows if w.out == "succeeded"]
    L = max(good, key=lambda w: w.tok) if good else None  # noqa: N806
    if L is None:
        return None
    if ckpt and ckpt != (L.as_of, L.rules):
        return None
    if (L.as_of, L.rules) == (p.as_of, p.rules):
        own = L.pid == p.pid
        fresh = p.force or p.rnd > 1
        if (own and L.rnd >= p.rnd) if fresh else True:
            return "already done"
    if not p.force:
        if L.as_of > p.as_of:
            return "newer results stand"
        if L.as_of == p.as_of and L.rules != p.rules and vouched(rows, L) > p.seq:
            return "newer results stand"
    return None


def vouched(rows: list[Row], result: Row) -> int:
    """Return the latest plan that made this result or found it done, as in the model."""
    return max(
        w.seq
        for w in rows
        if w.out in ("succeeded", "skipped") and (w.as_of, w.rules) == (result.as_of, result.rules)
    )


two, three = st.integers(0, 1), st.integers(1, 3)
pids = st.tuples(three, two)
asking = st.builds(Asking, pids, two, two, three, st.booleans())
histories = st.lists(
    st.builds(
        Row,
        st.just(0),
        pids,
        two,
        two,
        three,
        three,
        st.sampled_from(["succeeded", "succeeded", "skipped", "failed", "running"]),
    ),
    max_size=4,
).map(
    # a row's work may be of a later plan than its run, because the run resumed it
    lambda rows: [
        row._replace(tok=number, seq=max(row.seq, row.pid[0]))
        for number, row in enumerate(rows, start=1)
    ]
)


@settings(max_examples=1_000)
@given(p=asking, rows=histories, ckpt=st.none() | st.tuples(two, two))
def test_decisions_equal_those_of_the_model_of_the_protocol(
    p: Asking, rows: list[Row], ckpt: tuple[int, int] | None
) -> None:
    def night(number: int) -> datetime:
        return TONIGHT + number * DAY

    work = Work(night(p.as_of), str(p.rules), p.force, *p.pid, round=p.rnd)
    good = [row for row in rows if row.out == "succeeded"]
    done = None
    if good:
        last = good[-1]
        done = Done(
            night(last.as_of), str(last.rules), *last.pid, last.rnd, for_plan=vouched(rows, last)
        )
    checkpoint = ckpt and Checkpoint(night(ckpt[0]), str(ckpt[1]), p.rnd, p.seq, ("count",))
    expected = verdict(p, rows, ckpt)
    event(expected or "work to do")
    assert (reason_to_skip(work, done, checkpoint) or "").split(",")[0] == (expected or "")
