"""The properties of the protocol's model, checked on what is committed.

P1  nothing is written with a token that is not the newest
P2  no unit is skipped, and no run ends green, unless the work is done
P3  a unit is computed once (where a scenario demands it)
P4  a success is computed again if, and only if, it was cleared
P5  no unit ends well with data of two nights or two rules
P6  no older night replaces a newer one without force
P7  the data are those of an attempt that succeeded; an attempt with a closed row cannot commit
P8  every process and every run ends
P9  housekeeping fences off no attempt that holds its lease
P10 a unit that always fails, or always kills its worker, does not block the others
P11 a unit that ended well is not reported as failed
P12 an action is performed at most once
P13 no action is forgotten: when a run ends green, each was performed or has an open letter; when a
    finish ends, every claim belongs to an attempt that is still at work
P14 an action that is known to be performed is recorded, and has no open letter
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from tests.harness.interleavings.processes import NAMES, UNITS, Process

#: Moves before its row is opened, or after its work.
NOT_AT_WORK = ("redis", "draw_tokens", "end_failed", "end_well")
#: Moves inside a transaction, or into one.
CAN_COMMIT = ("enter", "writes", "commits", "claim_action")
STATE = """
SELECT
    (SELECT json_agg(json_build_array(f.unit_id, f.token))
     FROM jobs.fence AS f WHERE f.job = %(job)s),
    (SELECT json_agg(json_build_array(d.unit_id, d.step, d.as_of, d.rules_hash, d.token, d.forced,
        d.for_plan))
     FROM results AS d WHERE d.job = %(job)s),
    (SELECT json_agg(json_build_array(c.unit_id, c.step)) FROM jobs.checkpoint AS c
     WHERE c.job = %(job)s),
    (SELECT json_agg(json_build_array(w.unit_id, w.token, w.run, w.batch, w.try_number, w.as_of,
        w.rules_hash, w.round, w.for_plan, w.outcome, w.reason) ORDER BY w.token)
     FROM jobs.unit_run AS w WHERE w.job = %(job)s AND w.token IS NOT NULL),
    (SELECT json_agg(json_build_array(p.id, p.deployment, p.run_id, p.plan_try,
        (p.settings ->> 'rules')::integer) ORDER BY p.plan_try)
     FROM jobs.run AS p WHERE p.job = %(job)s),
    (SELECT json_agg(json_build_array(b.run, b.number, b.newly_planned, b.ended_well_at_clear))
     FROM jobs.batch AS b JOIN jobs.run AS p ON p.id = b.run WHERE p.job = %(job)s),
    (SELECT json_agg(json_build_array(a.unit_id, a.key, a.token, a.state))
     FROM jobs.action AS a WHERE a.job = %(job)s),
    (SELECT json_agg(json_build_array(d.unit_id, d.key)) FROM jobs.dead_letter AS d
     WHERE d.job = %(job)s AND d.kind = 'action' AND d.state = 'open')
"""


class ViolationError(AssertionError):
    """A property does not hold."""


@dataclass(frozen=True)
class Part:
    """The row that a step wrote."""

    as_of: str
    rules: str
    token: int
    forced: bool
    for_plan: int

    @property
    def work(self) -> tuple[str, str]:
        """The night and the rules."""
        return self.as_of, self.rules


@dataclass(frozen=True)
class Row:
    """An attempt in history that has a token."""

    unit_id: UUID
    token: int
    run: int
    batch: int
    try_number: int
    as_of: str
    rules: str
    round: int
    for_plan: int
    outcome: str
    reason: str | None

    @property
    def work(self) -> tuple[str, str]:
        """The night and the rules."""
        return self.as_of, self.rules


@dataclass(frozen=True)
class Plan:
    """A stored plan."""

    id: int
    deployment: str
    run_id: str
    plan_try: int
    rules: int


@dataclass(frozen=True)
class Round:
    """The state of a plan's batch in history."""

    newly_planned: bool
    ended_well_at_clear: int | None


@dataclass(frozen=True)
class Claim:
    """The stored claim of an action."""

    token: int
    state: str


@dataclass(frozen=True)
class State:
    """Everything that is committed, and the leases.

    Attributes:
        fence: the newest token of each unit.
        data: the row that each step wrote for each unit.
        checkpoints: units with unfinished work.
        rows: the attempts at each unit, by token.
        plans: the current plan of each run.
        owners: the run of each plan.
        rounds: the state of each plan's batches.
        claims: the claims of each unit's actions, by key.
        letters: the actions that have an open letter.
        leases: the text of each unit's lease.
    """

    fence: Mapping[UUID, int]
    data: Mapping[UUID, tuple[Part | None, ...]]
    checkpoints: frozenset[UUID]
    rows: Mapping[UUID, tuple[Row, ...]]
    plans: Mapping[str, Plan]
    owners: Mapping[int, str]
    rounds: Mapping[tuple[int, int], Round]
    claims: Mapping[tuple[UUID, str], Claim]
    letters: frozenset[tuple[UUID, str]]
    leases: Mapping[UUID, str | None]

    @classmethod
    def read(
        cls,
        connection: psycopg.Connection,
        job: str,
        steps: int,
        leases: Mapping[UUID, str | None],
    ) -> State:
        """Read the current state."""
        answer: Any = connection.execute(STATE, {"job": job}).fetchone()
        fence, results, checkpoints, attempts, planned, batches, actions, letters = (
            part or [] for part in answer
        )
        data: dict[UUID, list[Part | None]] = {v.id: [None] * steps for v in UNITS}
        for unit_id, step, *values in results:
            data[UUID(unit_id)][step] = Part(*values)
        rows: dict[UUID, list[Row]] = {unit.id: [] for unit in UNITS}
        for unit_id, *values in attempts:
            rows[UUID(unit_id)].append(Row(UUID(unit_id), *values))
        plans = [Plan(*values) for values in planned]
        return cls(
            {unit.id: 0 for unit in UNITS} | {UUID(v): token for v, token in fence},
            {unit_id: tuple(parts) for unit_id, parts in data.items()},
            frozenset(UUID(unit_id) for unit_id, _ in checkpoints),
            {unit_id: tuple(attempts) for unit_id, attempts in rows.items()},
            {_name(plan): plan for plan in plans},
            {plan.id: _name(plan) for plan in plans},
            {(run, number): Round(new, well) for run, number, new, well in batches},
            {(UUID(unit_id), key): Claim(*values) for unit_id, key, *values in actions},
            frozenset((UUID(unit_id), key) for unit_id, key in letters),
            leases,
        )

    def latest(self, unit_id: UUID, but: int | None = None) -> Row | None:
        """Return a unit's latest success by token, except that of one token."""
        good = [r for r in self.rows[unit_id] if r.outcome == "succeeded" and r.token != but]
        return good[-1] if good else None

    def vouched(self, unit_id: UUID, work: tuple[str, str], but: str | None = None) -> int:
        """Return the latest plan that made a result or found it done, except those of one run."""
        good = ("succeeded", "skipped")
        rows = (r for r in self.rows[unit_id] if r.work == work and r.outcome in good)
        return max((r.for_plan for r in rows if self.owners[r.run] != but), default=0)


def _name(plan: Plan) -> str:
    # two deployments use the same run id for the same night
    return "B" if (plan.deployment, plan.run_id) == (str(UUID(int=2)), "A") else plan.run_id


@dataclass
class Properties:
    """Compares the state before a move with the state after it.

    Attributes:
        once: whether P3 is checked.
        only: the properties that are checked; None means all.
        forced: the runs that replace newer results.
        generations: how often the success of a batch had been cleared when each try began.
    """

    once: bool
    only: frozenset[str] | None
    forced: frozenset[str]
    generations: dict[tuple[str, int, int], int]

    def need(self, holds: bool, name: str, message: str) -> None:
        """Raise if a property that is checked does not hold."""
        if not holds and (self.only is None or name in self.only):
            raise ViolationError(f"{name}: {message}")

    def after_a_move(self, before: State, after: State, *, clicks: int) -> None:
        """Check what a move committed."""
        for unit_id in NAMES:
            for was, part in zip(before.data[unit_id], after.data[unit_id], strict=True):
                if part is not None and part != was:
                    newest = after.fence[unit_id]
                    self.need(
                        part.token == newest,
                        "P1",
                        f"{NAMES[unit_id]} has token {part.token}; the newest is {newest}",
                    )
            outcomes = {row.token: row.outcome for row in before.rows[unit_id]}
            for row in after.rows[unit_id]:
                if row.outcome == "skipped" and outcomes.get(row.token) != "skipped":
                    self._skipped(after, row)
                if row.outcome == "succeeded" and outcomes.get(row.token) != "succeeded":
                    self._succeeded(before, after, row, clicks=clicks)
            last = after.data[unit_id][-1]
            if last is not None:
                self.need(
                    any(
                        row.token == last.token and row.outcome == "succeeded"
                        for row in after.rows[unit_id]
                    ),
                    "P7",
                    f"data of {NAMES[unit_id]} with token {last.token} are committed, but no "
                    "success has that token",
                )

        for (unit_id, key), claim in after.claims.items():
            was_claim = before.claims.get((unit_id, key))
            self.need(
                claim.token == after.fence[unit_id]
                or (was_claim is not None and was_claim.token == claim.token),
                "P1",
                f"{key} of {NAMES[unit_id]} is claimed with token {claim.token}; the newest is "
                f"{after.fence[unit_id]}",
            )
            self.need(
                claim.state != "done" or (unit_id, key) not in after.letters,
                "P14",
                f"{key} of {NAMES[unit_id]} is done, but its letter is open",
            )

    def performed_once(self, performed: Mapping[tuple[UUID, str], int]) -> None:
        """Check that no action was performed a second time."""
        for (unit_id, key), times in performed.items():
            self.need(times <= 1, "P12", f"{key} of {NAMES[unit_id]} is performed {times} times")

    def is_recorded(self, state: State, process: Process, unit_id: UUID, key: str) -> None:
        """Check that what a living process has performed is recorded."""
        claim = state.claims.get((unit_id, key))
        self.need(
            claim is not None and claim.state == "done",
            "P14",
            f"{process} has performed {key} of {NAMES[unit_id]}, which is {claim}",
        )

    def none_is_left_claimed(self, state: State) -> None:
        """Check, when a finish ends, that each claimed action belongs to an attempt at work."""
        for (unit_id, key), claim in state.claims.items():
            at_work = claim.token == state.fence[unit_id] and any(
                row.token == claim.token and row.outcome == "running" for row in state.rows[unit_id]
            )
            self.need(
                claim.state != "claimed" or at_work,
                "P13",
                f"a finish ends, but a dead attempt has claimed {key} of {NAMES[unit_id]}",
            )

    def none_is_forgotten(
        self,
        state: State,
        run: str,
        actions: Iterable[tuple[UUID, str]],
        performed: Mapping[Any, int],
    ) -> None:
        """Check that each action of a run that ends green was performed or has a letter."""
        for unit_id, key in actions:
            self.need(
                performed.get((unit_id, key), 0) > 0 or (unit_id, key) in state.letters,
                "P13",
                f"{run} ends green, {key} of {NAMES[unit_id]} was not performed, has no letter",
            )

    def closed_rows_cannot_commit(self, state: State, processes: list[Process]) -> None:
        """Check that no attempt with a closed row can still commit."""
        for process in processes:
            for attempt in process.at_work():
                unit_id = attempt.unit.id
                if attempt.token != state.fence[unit_id] or attempt.token is None:
                    continue
                closed = any(
                    row.token == attempt.token and row.outcome == "failed"
                    for row in state.rows[unit_id]
                )
                at = process.main.pause
                can_commit = at.kind in CAN_COMMIT and unit_id in at.units
                self.need(
                    not (closed and can_commit),
                    "P7",
                    f"{process} can still commit {NAMES[unit_id]}, but its row is closed",
                )

    def begins_to_work(self, state: State, process: Process, unit_id: UUID) -> None:
        """Check that no success is computed again unless it was cleared."""
        latest = state.latest(unit_id)
        if latest is None:
            return
        name = state.owners[latest.run]
        generation = self.generations.get((name, latest.batch, latest.try_number))
        is_own = (name, latest.batch) == (process.run, process.batch)
        stands = all(p is not None and p.work == latest.work for p in state.data[unit_id])
        self.need(
            not (is_own and generation == process.generation and stands),
            "P4",
            f"{process} computes {NAMES[unit_id]} again, but its success was not cleared",
        )

    def living_keep_their_tokens(self, before: State, after: State, living: list[Process]) -> None:
        """Check that attempts with a lease keep their tokens while a row is closed."""
        for process in living:
            for attempt in process.at_work():
                unit_id = attempt.unit.id
                was_newest = attempt.token == before.fence[unit_id]
                holds = before.leases[unit_id] == attempt.holder.text
                at_work = process.main.pause.kind not in NOT_AT_WORK
                self.need(
                    after.fence[unit_id] == before.fence[unit_id]
                    or not (was_newest and holds and at_work and unit_id in process.kept),
                    "P9",
                    f"housekeeping fences {process} off, though it holds {NAMES[unit_id]}'s lease",
                )

    def reported_as_failed(self, state: State, process: Process, plan: int, unit_id: UUID) -> None:
        """Check that a unit that a try reports as failed did not end well in it."""
        own = (plan, process.batch, process.number)
        self.need(
            not any(
                (row.run, row.batch, row.try_number) == own and row.outcome == "succeeded"
                for row in state.rows[unit_id]
            ),
            "P11",
            f"{process} reports {NAMES[unit_id]} as failed, but it ended well",
        )

    def others_are_done(self, state: State, bad: set[UUID]) -> None:
        """Check, when all is over, that every unit is done that can be."""
        for unit_id in set(NAMES) - bad:
            self.need(
                state.latest(unit_id) is not None,
                "P10",
                f"{NAMES[unit_id]} was blocked by another unit",
            )

    def ends_green(
        self, state: State, run: str, as_of: str, marks: Mapping[UUID, int], rules: str
    ) -> None:
        """Check that a run that ends green is done.

        Args:
            state: the current state.
            run: the run's name.
            as_of: the moment that its results must be as of.
            marks: for each of its units, the newest token when its success was last cleared; 0 if
                it never was.
            rules: the rules of its plan.
        """
        number = state.plans[run].id
        for unit_id, mark in marks.items():
            for part in state.data[unit_id]:
                if part is None:
                    self.need(False, "P2", f"{run} ends green, but {NAMES[unit_id]} has no results")
                    return
                is_own = part.work == (as_of, rules)
                maker = next(row.run for row in state.rows[unit_id] if row.token == part.token)
                begun_for = 0 if state.owners[maker] == run else part.for_plan
                vouched = max(begun_for, state.vouched(unit_id, part.work, but=run))
                is_newer = part.as_of > as_of or (part.as_of == as_of and vouched > number)
                is_forced = part.forced and state.owners[maker] != run
                self.need(
                    is_own or is_newer or is_forced,
                    "P2",
                    f"{run} ends green, but {NAMES[unit_id]} holds {part}",
                )
                if mark and is_own and not is_forced:
                    self.need(
                        part.token > mark,
                        "P4",
                        f"{run} ends green, but the cleared success of {NAMES[unit_id]} was not "
                        "computed again",
                    )

    def _skipped(self, state: State, row: Row) -> None:
        parts = state.data[row.unit_id]
        is_called_newer = (row.reason or "").startswith("newer results stand")
        for part in parts:
            stands = part is not None and (
                part.work == row.work
                or (
                    is_called_newer
                    and (
                        part.as_of > row.as_of
                        or (
                            part.as_of == row.as_of
                            and state.vouched(row.unit_id, part.work) > row.for_plan
                        )
                    )
                )
            )
            last = parts[-1]
            is_whole = part is not None and last is not None and part.work == last.work
            self.need(
                stands and is_whole,
                "P2",
                f"{NAMES[row.unit_id]} is skipped ({row.reason}), but its data are {parts}",
            )

    def _succeeded(self, before: State, after: State, row: Row, *, clicks: int) -> None:
        parts = after.data[row.unit_id]
        name = NAMES[row.unit_id]
        self.need(
            all(part is not None and part.work == row.work for part in parts),
            "P5",
            f"{name} ends well with mixed data {parts}",
        )
        latest = after.latest(row.unit_id, but=row.token)
        forced = after.owners[row.run] in self.forced
        if latest and not forced and row.unit_id not in before.checkpoints:
            self.need(
                latest.as_of <= row.as_of, "P6", f"{row.as_of} of {name} replaces {latest.as_of}"
            )
        if self.once and not clicks:
            self.need(
                not any(
                    other.outcome == "succeeded" and other.work == row.work
                    for other in after.rows[row.unit_id]
                    if other.token != row.token
                ),
                "P3",
                f"{name} is computed a second time",
            )
