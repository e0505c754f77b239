"""Standing: on what proof a venue is skipped, and whose unfinished work is gone on with."""

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
    can_resume,
    reason_to_skip,
)

TONIGHT = datetime(2026, 3, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)

#: A first try of batch 0 of run 7, whose plan is the 40th.
WORK = Work(TONIGHT, "rules", False, run=7, batch=0, round=1, plan_number=40)
#: Another run's success of the same night, by the same rules.
DONE = Done(TONIGHT, "rules", run=6, batch=3, round=1, for_plan=39)
OWN = replace(DONE, run=7, batch=0, for_plan=40)
BEGUN = Checkpoint(TONIGHT, "rules", round=1, plan_number=40, step=1, cursor=None)

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
        pytest.param(REDO, DONE, None, None, id="cleared: another's success is no proof"),
        pytest.param(REDO, OWN, None, None, id="cleared: the success of the round before is none"),
        pytest.param(
            REDO, replace(OWN, round=2), None, "already done", id="cleared, done in this round"
        ),
        pytest.param(
            REDO, replace(OWN, round=3), None, "already done", id="cleared, done in a later round"
        ),
        pytest.param(
            REDO, replace(OWN, round=2, batch=1), None, None, id="cleared: another batch's is none"
        ),
        pytest.param(
            REDO, replace(OWN, round=2, run=6), None, None, id="cleared: another run's is none"
        ),
        pytest.param(FORCED, DONE, None, None, id="forced: another's success is no proof"),
        pytest.param(FORCED, OWN, None, "already done", id="forced, done by this batch"),
        pytest.param(WORK, EARLIER, None, None, id="an earlier night stands"),
        pytest.param(WORK, LATER, None, "newer results stand", id="a later night stands"),
        pytest.param(REDO, LATER, None, "newer results stand", id="cleared, a later night stands"),
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
            id="somebody began to overwrite it by other rules",
        ),
        pytest.param(
            WORK,
            LATER,
            replace(BEGUN, as_of=TONIGHT - DAY),
            None,
            id="somebody began to overwrite the later night",
        ),
        pytest.param(WORK, LATER, BEGUN, None, id="this work lies half done over the later night"),
    ],
)
def test_a_venue_is_skipped_only_on_proof(
    work: Work, done: Done | None, checkpoint: Checkpoint | None, reason: str | None
) -> None:
    answer = reason_to_skip(work, done, checkpoint)
    assert (answer or "").split(",")[0] == (reason or "")


def test_the_reason_names_the_night_that_stands_and_what_replaces_it() -> None:
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
        (replace(BEGUN, plan_number=12), True),
        (replace(BEGUN, plan_number=99, cursor={"piece": 1}), True),
        (replace(BEGUN, as_of=TONIGHT - DAY), False),
        (replace(BEGUN, rules_hash="other rules"), False),
        (replace(BEGUN, round=2), False),
    ],
)
def test_unfinished_work_is_gone_on_with_only_if_it_is_this_very_work(
    checkpoint: Checkpoint | None, resumes: bool
) -> None:
    assert can_resume(WORK, checkpoint) is resumes


# against the model of the protocol ---------------------------------------------------------


class Row(NamedTuple):
    """A row of history, as the model has it."""

    tok: int
    pid: tuple[int, int]
    as_of: int
    rules: int
    rnd: int
    seq: int
    out: str


class Asking(NamedTuple):
    """Who asks, as the model has it: a process of a run that is forced or not."""

    pid: tuple[int, int]
    as_of: int
    rules: int
    rnd: int
    seq: int
    force: bool


def verdict(p: Asking, rows: list[Row], ckpt: tuple[int, int] | None) -> str | None:
    """The model's `verdict`, word for word but for its mutations."""
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
    """The model's: the latest plan that made, or found already done, this very result."""
    return max(
        w.seq
        for w in rows
        if w.out in ("succeeded", "skipped") and (w.as_of, w.rules) == (result.as_of, result.rules)
    )


two, three = st.integers(0, 1), st.integers(1, 3)
pids = st.tuples(two, two)
asking = st.builds(Asking, pids, two, two, three, three, st.booleans())
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
).map(lambda rows: [row._replace(tok=number) for number, row in enumerate(rows, start=1)])


@settings(max_examples=1_000)
@given(p=asking, rows=histories, ckpt=st.none() | st.tuples(two, two))
def test_it_answers_as_the_model_of_the_protocol_does(
    p: Asking, rows: list[Row], ckpt: tuple[int, int] | None
) -> None:
    def night(number: int) -> datetime:
        return TONIGHT + number * DAY

    work = Work(
        night(p.as_of), str(p.rules), p.force, p.pid[0], p.pid[1], round=p.rnd, plan_number=p.seq
    )
    good = [row for row in rows if row.out == "succeeded"]
    done = None
    if good:
        last = good[-1]
        done = Done(
            night(last.as_of), str(last.rules), *last.pid, last.rnd, for_plan=vouched(rows, last)
        )
    checkpoint = ckpt and Checkpoint(night(ckpt[0]), str(ckpt[1]), p.rnd, p.seq, 1, None)
    expected = verdict(p, rows, ckpt)
    event(expected or "work to do")
    assert (reason_to_skip(work, done, checkpoint) or "").split(",")[0] == (expected or "")
