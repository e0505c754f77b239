"""What must hold, whatever happens: the properties of the protocol's model, on what is committed.

P1  nothing is written with a token that is not the newest
P2  nothing is skipped or ends green undone
P3  a venue is computed once (where a scenario says so)
P4  a success is not computed again unless somebody cleared it, and then it is
P5  no venue ends well with data of two nights or two rules
P6  no older night replaces a newer one without force
P7  the data are those of an attempt that has succeeded; one whose row is closed cannot commit
P8  everything comes to an end
P9  housekeeping shuts nobody out who holds its lease
P10 a venue that always fails, or always kills its worker, keeps no other from its end
P11 what has ended well is not told as failed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from tests.harness.interleavings.processes import NAMES, VENUES, Process

#: Moves before its row is opened, or after its work.
NOT_AT_WORK = ("redis", "draw_tokens", "end_failed", "end_well")
STATE = """
SELECT
    (SELECT json_agg(json_build_array(f.venue_id, f.token))
     FROM jobs.fence AS f WHERE f.job = %(job)s),
    (SELECT json_agg(json_build_array(d.venue_id, d.step, d.as_of, d.rules_hash, d.token, d.forced,
        d.plan_number))
     FROM results AS d WHERE d.job = %(job)s),
    (SELECT json_agg(json_build_array(c.venue_id, c.step)) FROM jobs.checkpoint AS c
     WHERE c.job = %(job)s),
    (SELECT json_agg(json_build_array(w.venue_id, w.token, w.run, w.batch, w.try_number, w.as_of,
        w.rules_hash, w.round, w.plan_number, w.outcome, w.reason) ORDER BY w.token)
     FROM jobs.venue_run AS w WHERE w.job = %(job)s AND w.token IS NOT NULL),
    (SELECT json_agg(json_build_array(p.id, p.deployment, p.run_id, p.plan_try, p.plan_number,
        (p.settings ->> 'rules')::integer) ORDER BY p.plan_try)
     FROM jobs.run AS p WHERE p.job = %(job)s),
    (SELECT json_agg(json_build_array(b.run, b.number, b.newly_planned, b.ended_well_at_clear))
     FROM jobs.batch AS b JOIN jobs.run AS p ON p.id = b.run WHERE p.job = %(job)s)
"""


class ViolationError(AssertionError):
    """A property does not hold."""


@dataclass(frozen=True)
class Part:
    """What a step wrote."""

    as_of: str
    rules: str
    token: int
    forced: bool
    plan_number: int

    @property
    def work(self) -> tuple[str, str]:
        """The night and the rules."""
        return self.as_of, self.rules


@dataclass(frozen=True)
class Row:
    """An attempt in history that has a token."""

    venue_id: UUID
    token: int
    run: int
    batch: int
    try_number: int
    as_of: str
    rules: str
    round: int
    plan_number: int
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
    number: int
    rules: int


@dataclass(frozen=True)
class Round:
    """What history knows of a plan's batch."""

    newly_planned: bool
    ended_well_at_clear: int | None


@dataclass(frozen=True)
class State:
    """All that is committed, and the leases.

    Attributes:
        fence: the newest token of each venue.
        data: what each step wrote of each venue.
        checkpoints: venues of which work is unfinished.
        rows: the attempts at each venue, by token.
        plans: the plan that holds of each run.
        owners: the run of each plan.
        rounds: of each plan's batch.
        leases: the text of each venue's.
    """

    fence: Mapping[UUID, int]
    data: Mapping[UUID, tuple[Part | None, ...]]
    checkpoints: frozenset[UUID]
    rows: Mapping[UUID, tuple[Row, ...]]
    plans: Mapping[str, Plan]
    owners: Mapping[int, str]
    rounds: Mapping[tuple[int, int], Round]
    leases: Mapping[UUID, str | None]

    @classmethod
    def read(
        cls,
        connection: psycopg.Connection,
        job: str,
        steps: int,
        leases: Mapping[UUID, str | None],
    ) -> State:
        """Read it as it stands now."""
        answer: Any = connection.execute(STATE, {"job": job}).fetchone()
        fence, results, checkpoints, attempts, planned, batches = (part or [] for part in answer)
        data: dict[UUID, list[Part | None]] = {v.venue_id: [None] * steps for v in VENUES}
        for venue_id, step, *values in results:
            data[UUID(venue_id)][step] = Part(*values)
        rows: dict[UUID, list[Row]] = {venue.venue_id: [] for venue in VENUES}
        for venue_id, *values in attempts:
            rows[UUID(venue_id)].append(Row(UUID(venue_id), *values))
        plans = [Plan(*values) for values in planned]
        return cls(
            {venue.venue_id: 0 for venue in VENUES} | {UUID(v): token for v, token in fence},
            {venue_id: tuple(parts) for venue_id, parts in data.items()},
            frozenset(UUID(venue_id) for venue_id, _ in checkpoints),
            {venue_id: tuple(attempts) for venue_id, attempts in rows.items()},
            {_name(plan): plan for plan in plans},
            {plan.id: _name(plan) for plan in plans},
            {(run, number): Round(new, well) for run, number, new, well in batches},
            leases,
        )

    def latest(self, venue_id: UUID, but: int | None = None) -> Row | None:
        """Give a venue's latest success by token, but for that of one token."""
        good = [r for r in self.rows[venue_id] if r.outcome == "succeeded" and r.token != but]
        return good[-1] if good else None

    def vouched(self, venue_id: UUID, work: tuple[str, str], but: str | None = None) -> int:
        """Give the latest plan that made a result, or found it done; but for those of one run."""
        good = ("succeeded", "skipped")
        rows = (r for r in self.rows[venue_id] if r.work == work and r.outcome in good)
        return max((r.plan_number for r in rows if self.owners[r.run] != but), default=0)


def _name(plan: Plan) -> str:
    # two deployments have equal run ids for the same night
    return "B" if (plan.deployment, plan.run_id) == (str(UUID(int=2)), "A") else plan.run_id


@dataclass
class Properties:
    """Compares what was with what is.

    Attributes:
        once: P3 is looked at.
        only: the properties that are looked at; None means all.
        forced: the runs that replace newer results.
        generations: how often the success of a batch had been cleared when a try began.
    """

    once: bool
    only: frozenset[str] | None
    forced: frozenset[str]
    generations: dict[tuple[str, int, int], int]

    def need(self, holds: bool, name: str, told: str) -> None:
        """Raise if a property that is looked at does not hold."""
        if not holds and (self.only is None or name in self.only):
            raise ViolationError(f"{name}: {told}")

    def after_a_move(self, before: State, after: State, *, clicks: int) -> None:
        """Check what a move has committed."""
        for venue_id in NAMES:
            for was, part in zip(before.data[venue_id], after.data[venue_id], strict=True):
                if part is not None and part != was:
                    newest = after.fence[venue_id]
                    self.need(
                        part.token == newest,
                        "P1",
                        f"{NAMES[venue_id]} is written with token {part.token}, newest is {newest}",
                    )
            outcomes = {row.token: row.outcome for row in before.rows[venue_id]}
            for row in after.rows[venue_id]:
                if row.outcome == "skipped" and outcomes.get(row.token) != "skipped":
                    self._skipped(after, row)
                if row.outcome == "succeeded" and outcomes.get(row.token) != "succeeded":
                    self._succeeded(before, after, row, clicks=clicks)
            last = after.data[venue_id][-1]
            if last is not None:
                self.need(
                    any(
                        row.token == last.token and row.outcome == "succeeded"
                        for row in after.rows[venue_id]
                    ),
                    "P7",
                    f"data of {NAMES[venue_id]} with token {last.token} are committed, and no "
                    "success has it",
                )

    def closed_rows_cannot_commit(self, state: State, processes: list[Process]) -> None:
        """Check that a closed row's attempt has an older token."""
        for process in processes:
            for attempt in process.at_work():
                venue_id = attempt.venue.venue_id
                if attempt.token != state.fence[venue_id] or attempt.token is None:
                    continue
                closed = any(
                    row.token == attempt.token and row.outcome == "failed"
                    for row in state.rows[venue_id]
                )
                at = process.main.pause
                can_commit = at.kind in ("enter", "writes", "commits") and venue_id in at.venues
                self.need(
                    not (closed and can_commit),
                    "P7",
                    f"the row of {process} at {NAMES[venue_id]} is closed, and it can still commit",
                )

    def begins_to_work(self, state: State, process: Process, venue_id: UUID) -> None:
        """Check that nothing is computed again that nobody has cleared."""
        latest = state.latest(venue_id)
        if latest is None:
            return
        name = state.owners[latest.run]
        generation = self.generations.get((name, latest.batch, latest.try_number))
        is_own = (name, latest.batch) == (process.run, process.batch)
        stands = all(p is not None and p.work == latest.work for p in state.data[venue_id])
        self.need(
            not (is_own and generation == process.generation and stands),
            "P4",
            f"{process} computes {NAMES[venue_id]} again, though nobody cleared its success",
        )

    def robs_nobody(self, before: State, after: State, living: list[Process]) -> None:
        """Check that those who hold their leases keep their tokens while a row is closed."""
        for process in living:
            for attempt in process.at_work():
                venue_id = attempt.venue.venue_id
                was_newest = attempt.token == before.fence[venue_id]
                holds = before.leases[venue_id] == attempt.holder.text
                at_work = process.main.pause.kind not in NOT_AT_WORK
                self.need(
                    after.fence[venue_id] == before.fence[venue_id]
                    or not (was_newest and holds and at_work and venue_id in process.kept),
                    "P9",
                    f"housekeeping shuts {process} out of {NAMES[venue_id]}, whose lease it holds",
                )

    def told_as_failed(self, state: State, process: Process, plan: int, venue_id: UUID) -> None:
        """Check that what a try tells as failed has not ended well in it."""
        own = (plan, process.batch, process.number)
        self.need(
            not any(
                (row.run, row.batch, row.try_number) == own and row.outcome == "succeeded"
                for row in state.rows[venue_id]
            ),
            "P11",
            f"{process} tells {NAMES[venue_id]} as failed, which has ended well",
        )

    def others_are_done(self, state: State, bad: set[UUID]) -> None:
        """Check, when all is over, that only those venues are not done that never can be."""
        for venue_id in set(NAMES) - bad:
            self.need(
                state.latest(venue_id) is not None,
                "P10",
                f"{NAMES[venue_id]} was kept from its end by another venue",
            )

    def ends_green(
        self, state: State, run: str, as_of: str, marks: Mapping[UUID, int], rules: str
    ) -> None:
        """Check that a run that ends green is done.

        Args:
            state: as it stands.
            run: its name.
            as_of: what its results are to be as of.
            marks: of each of its venues the newest token when its success was last cleared; 0 if
                it never was.
            rules: of its plan.
        """
        number = state.plans[run].number
        for venue_id, mark in marks.items():
            for part in state.data[venue_id]:
                if part is None:
                    self.need(False, "P2", f"{run} ends green, {NAMES[venue_id]} has no results")
                    return
                is_own = part.work == (as_of, rules)
                maker = next(row.run for row in state.rows[venue_id] if row.token == part.token)
                begun_for = 0 if state.owners[maker] == run else part.plan_number
                vouched = max(begun_for, state.vouched(venue_id, part.work, but=run))
                is_newer = part.as_of > as_of or (part.as_of == as_of and vouched > number)
                is_forced = part.forced and state.owners[maker] != run
                self.need(
                    is_own or is_newer or is_forced,
                    "P2",
                    f"{run} ends green, {NAMES[venue_id]} holds {part}",
                )
                if mark and is_own and not is_forced:
                    self.need(
                        part.token > mark,
                        "P4",
                        f"{run} ends green, the cleared success of {NAMES[venue_id]} was not "
                        "computed again",
                    )

    def _skipped(self, state: State, row: Row) -> None:
        parts = state.data[row.venue_id]
        is_newer_told = (row.reason or "").startswith("newer results stand")
        for part in parts:
            stands = part is not None and (
                part.work == row.work
                or (
                    is_newer_told
                    and (
                        part.as_of > row.as_of
                        or (
                            part.as_of == row.as_of
                            and state.vouched(row.venue_id, part.work) > row.plan_number
                        )
                    )
                )
            )
            last = parts[-1]
            is_whole = part is not None and last is not None and part.work == last.work
            self.need(
                stands and is_whole,
                "P2",
                f"{NAMES[row.venue_id]} is skipped ({row.reason}), its data are {parts}",
            )

    def _succeeded(self, before: State, after: State, row: Row, *, clicks: int) -> None:
        parts = after.data[row.venue_id]
        name = NAMES[row.venue_id]
        self.need(
            all(part is not None and part.work == row.work for part in parts),
            "P5",
            f"{name} ends well with mixed data {parts}",
        )
        latest = after.latest(row.venue_id, but=row.token)
        forced = after.owners[row.run] in self.forced
        if latest and not forced and row.venue_id not in before.checkpoints:
            self.need(
                latest.as_of <= row.as_of, "P6", f"{row.as_of} of {name} replaces {latest.as_of}"
            )
        if self.once and not clicks:
            self.need(
                not any(
                    other.outcome == "succeeded" and other.work == row.work
                    for other in after.rows[row.venue_id]
                    if other.token != row.token
                ),
                "P3",
                f"{name} is computed a second time",
            )
