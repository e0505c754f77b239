"""Each guard of the protocol, and how it is cut out of the harness's own code.

A cut replaces a text in a function's source, a .sql file or a constant. It fails unless the text
occurs exactly once, so that no cut goes stale unnoticed.
"""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.harness.interleavings.scenarios import (
    A1,
    B1,
    COMMAND_LINE,
    FORCED,
    OLD,
    RULES2,
    RULES2_1,
    TWO,
    TWO3,
    A,
    B,
    Scenario,
)
from tests.harness.interleavings.world import BatchState, RunState

from venue_analytics.database import statements
from venue_analytics.harness import attempts, effects, finish, leases, process, standing, steps
from venue_analytics.harness.leases import Holder
from venue_analytics.harness.process import _BatchWork
from venue_analytics.harness.queue import UnitQueue

HARNESS = "venue_analytics.harness"
Changes = tuple[tuple[str, str], ...]


class Cut(Protocol):
    """Removes a part of a guard."""

    def make(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        """Remove it; changed files may be written to the test's own directory."""


@dataclass(frozen=True)
class Code:
    """Changes the source of a function, in its module or in another that imports it."""

    function: Callable[..., Any]
    owner: Any
    changes: Changes
    ending: str = ""

    def make(self, monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
        source = _changed(textwrap.dedent(inspect.getsource(self.function)), self.changes)
        flags = annotations.compiler_flag
        made: dict[str, Any] = {}
        code = compile(source + self.ending, f"<{self.function.__name__}, cut>", "exec", flags)
        exec(code, self.function.__globals__, made)  # noqa: S102  a cut is changed code
        monkeypatch.setattr(self.owner, self.function.__name__, made[self.function.__name__])


@dataclass(frozen=True)
class Sql:
    """Changes a statement."""

    name: str
    changes: Changes

    def make(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        if not (directory / "sql").exists():
            shutil.copytree(str(files(HARNESS).joinpath("sql")), directory / "sql")
        file = directory / "sql" / f"{self.name}.sql"
        file.write_text(_changed(file.read_text(), self.changes))
        monkeypatch.setattr(
            statements,
            "files",
            lambda package: directory if package == HARNESS else files(package),
        )


@dataclass(frozen=True)
class Constant:
    """Changes the text of a module's constant."""

    module: Any
    name: str
    changes: Changes

    def make(self, monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
        text = _changed(getattr(self.module, self.name), self.changes)
        monkeypatch.setattr(self.module, self.name, text)


def _changed(text: str, changes: Changes) -> str:
    for old, new in changes:
        if text.count(old) != 1:
            raise LookupError(f"found {text.count(old)} times, not once:\n{old}\nin\n{text}")
        text = text.replace(old, new)
    return text


@dataclass(frozen=True)
class Guard:
    """A guard, and what breaks without it.

    Attributes:
        name: the clause's name in the model, where it has one.
        says: the rule that it enforces.
        cuts: the changes that remove it.
        scenario: where its absence shows.
        breaks: the properties of which one breaks; others are not checked.
        clear_number_of: returns the clear number that a batch's try gets, if that is the cut.
        first_episode: where the search begins; close to the violation if that takes long to find.
    """

    name: str
    says: str
    cuts: tuple[Cut, ...]
    scenario: Scenario
    breaks: frozenset[str]
    clear_number_of: Callable[[RunState, BatchState], int] | None = None
    first_episode: int = 1


def _guard(
    name: str, says: str, scenario: Scenario, breaks: str, *cuts: Cut, **options: Any
) -> Guard:
    return Guard(name, says, cuts, scenario, frozenset(breaks.split()), **options)


PLANNED_ANEW = Code(attempts._standing, attempts, (('if row["planned_anew"]:', "if False:"),))
TWO_KEA = Scenario("two deployments", (A, B), 1, 2, "KEA", once=True)
TWO_K = replace(TWO_KEA, faults=1, fault_kinds="K")
TWO_KZ = replace(TWO_KEA, fault_kinds="KZ")
THREE = (A, B, COMMAND_LINE)
ONE = Scenario("one run", (A,), 1, 1, "KZ", 1, "s", once=True)
RULES = Scenario("other rules beside", (A1, RULES2), 1, 1, "KE")
GROUP = Scenario("group", (TWO,), 1, 1, "A", once=True, small=True)
BOTH = (replace(TWO, tries=1), replace(B, batches=((1, 0),), tries=1))
CLOSE = "close(connection, job, attempts, results)"
LOCK_ALONE = """(
    SELECT f.unit_id
    FROM jobs.fence AS f
    WHERE f.job = %(job)s AND f.unit_id = any(%(unit_ids)s::uuid[])
        AND set_config('app.current_tenant_id', %(tenant_id)s::uuid::text, TRUE) <> ''
        AND array_length(%(tokens)s::bigint[], 1) > 0 AND %(limit_ms)s::bigint IS NOT DISTINCT FROM
        %(limit_ms)s::bigint
    ORDER BY f.unit_id OFFSET 0 FOR UPDATE
) AS e (unit_id)
WHERE e.unit_id::text = ''"""
ENTER = """jobs.enter(
        %(job)s, %(tenant_id)s, %(unit_ids)s::uuid[], %(tokens)s::bigint[], %(limit_ms)s::bigint
    ) AS e (unit_id)"""
GIVE_BACK = "self._release_ended(together)"
CLOSE_LATE = """
    for attempt in together:
        if late := vars(attempt).pop('late', None):
            attempts.close(self._database.open(), self._job, [attempt], [late])"""
ASK_BEFORE = """for asking in together:
            (asking.asked,) = attempts.standing(connection, self._job, [asking])
        """
ACTION = Scenario("an effect", (A,), 1, 1, "K", actions=1, fault_rate=100)
ACTION_E = replace(ACTION, runs=(A, B), fault_kinds="E")
CLAIM = """        with entered():
            claimed = connection.execute(statement(__package__, "claim_action"), names).fetchone()
        if claimed is None:
            continue
"""
CLAIM_LATE = """
            with entered():
                connection.execute(statement(__package__, "claim_action"), names)"""
REASON = (standing.reason_to_skip, standing)

GUARDS = (
    _guard(
        "clear_number",
        "a batch is opened again only if it was cleared since it ended well",
        replace(ONE, clicks=0, fault_kinds="K"),
        "P3 P4",
        Sql(
            "open_round",
            (
                (
                    "coalesce(%(clear_number)s > ended_well_at_clear, FALSE)",
                    "(ended_well_at_clear IS NOT NULL AND %(clear_number)s IS NOT NULL)",
                ),
            ),
        ),
    ),
    _guard(
        "rounds",
        "a clear is detected by its number, not by a grown max_tries",
        replace(ONE, runs=(TWO,), faults=0),
        "P4",
        clear_number_of=lambda _, batch: batch.max_tries,
    ),
    _guard(
        "fresh_round",
        "after a clear, and under force, only a success of this batch and round counts",
        Scenario("two deployments, a click", (A, B1), 1, 0, "", 1, "s"),
        "P4",
        Code(
            *REASON,
            (
                ("and done.round >= work.round", ""),
                ("(is_own or anybody_counts)", "not work.force"),
            ),
        ),
    ),
    _guard(
        "rules_order",
        "of two rules for one night, those of the later plan win",
        RULES,
        "P2",
        Code(*REASON, (("if is_newer or has_later_rules:", "if is_newer:"),)),
    ),
    _guard(
        "newer",
        "an older night does not replace a newer one",
        Scenario("older backfill beside", (A1, OLD), 1, 1, "KZE", once=True),
        "P2 P6",
        Code(*REASON, (("if is_newer or has_later_rules:", "if False:"),)),
    ),
    _guard(
        "ckpt_blocks",
        "nothing counts as done while other unfinished work overwrites a success",
        Scenario(
            "two steps, forced, other deployment",
            (A1, B1, replace(FORCED, tries=1)),
            2,
            1,
            "T",
            fault_rate=150,
        ),
        "P2",
        Code(*REASON, (("if checkpoint is not None and", "if False and"),)),
    ),
    _guard(
        "ckpt_tag",
        "only unfinished work of the same night, rules and round is resumed",
        Scenario("two steps, other rules", (A1, RULES2_1), 2, 2, "KE", 1, "f"),
        "P5",
        Code(
            standing.can_resume,
            standing,
            (("== (work.as_of, work.rules_hash, work.round)", "!= ()"),),
        ),
    ),
    _guard(
        "latest",
        "an older success that was overwritten since does not count",
        Scenario("other rules between", (A1, RULES2_1, B1), 1, 0),
        "P2",
        Sql("standing", (("ORDER BY r.token DESC", "ORDER BY r.token ASC"),)),
    ),
    _guard(
        "lazy_round",
        "a plan opens no round, because it may die and be retried",
        TWO_KZ,
        "P3",
        Sql(
            "store_batch",
            (
                ("units, round)", "units, round, newly_planned)"),
                ("%(round)s)", "%(round)s + 1, FALSE)"),
            ),
        ),
    ),
    _guard(
        "plan_order",
        "an earlier try's plan never replaces a later one's",
        Scenario(
            "rules edited, all cleared", (replace(A, edit=2),), 1, 2, "Z", 1, "w", fault_rate=100
        ),
        "P2",
        Sql("load_run", (("AND r.is_current", "ORDER BY r.id DESC LIMIT 1"),)),
        PLANNED_ANEW,
    ),
    _guard(
        "finish_air",
        "finish also asks Airflow whether each batch succeeded",
        replace(ONE, fault_kinds="K"),
        "P4",
        Code(
            finish.finish_run, finish, (("if batch.number in failed_batches and", "if False and"),)
        ),
    ),
    _guard(
        "fence",
        "a transaction begins only with the newest token",
        replace(TWO_KEA, fault_kinds="E"),
        "P1",
        Sql(
            "enter",
            ((ENTER, LOCK_ALONE),),
        ),
    ),
    _guard(
        "take_later",
        "an earlier try never takes the lease from a later one",
        Scenario("one run", (A,), 1, 1, "Z", once=True, is_even=True, fault_rate=100),
        "P8",
        Code(
            Holder.is_earlier_try_than,
            Holder,
            (("self.try_number < other", "self.try_number != other"),),
        ),
        first_episode=2900,
    ),
    _guard(
        "lease_excl",
        "a lease that another process holds is not taken",
        replace(TWO_KEA, faults=0, is_even=True),
        "P8",
        Constant(
            leases, "TAKE", (("if held and held ~= ARGV[1]", "if false and held ~= ARGV[1]"),)
        ),
    ),
    _guard(
        "reconcile_lease",
        "housekeeping leaves an attempt alone that holds its lease",
        replace(TWO_K, faults=0),
        "P9",
        Code(Holder.is_attempt, Holder, (("return own ==", "return not own =="),)),
    ),
    _guard(
        "reconcile_draw",
        "closing a row left running also raises its fence",
        Scenario("three deployments", THREE, 1, 2, "E", fault_rate=100),
        "P7",
        Sql("raise_fence", (("token = %(token)s", "token = -%(token)s"),)),
    ),
    _guard(
        "draw_cas",
        "a fence is raised only while it still has the row's token",
        Scenario("three deployments", THREE, 1, 2, "K", once=True, fault_rate=100),
        "P9",
        Sql("raise_fence", (("AND token = %(token)s", "AND %(token)s > 0"),)),
    ),
    _guard(
        "cas_close",
        "only a running row is closed",
        replace(TWO_KEA, fault_kinds="A"),
        "P7",
        Sql("end_failed", (("AND r.outcome = 'running'", ""),)),
    ),
    _guard(
        "close_in_commit",
        "the transaction of the last data closes the row",
        TWO_K,
        "P3 P7",
        Code(steps._do_inside, steps, ((CLOSE, "done.late = attempts, results"),)),
        Code(
            steps.do_step,
            process,
            (("return done", "getattr(done, 'late', 0) and close(connection, job, *done.late)"),),
            "    return done\n",
        ),
    ),
    _guard(
        "close_before_release",
        "the row is closed before the lease is released",
        TWO_K,
        "P2 P3",
        Code(
            steps._do_inside,
            steps,
            ((CLOSE, "for one, end in zip(attempts, results): one.late = end"),),
        ),
        Code(
            _BatchWork._work_on,
            _BatchWork,
            (
                (
                    GIVE_BACK,
                    GIVE_BACK + CLOSE_LATE,
                ),
            ),
        ),
    ),
    _guard(
        "check_after_draw",
        "the current results are read under the fence, not before the token is drawn",
        replace(TWO_KEA, fault_kinds="E"),
        "P3",
        Code(
            attempts.begin,
            steps,
            (("standing(connection, job, attempts)", "[one.asked for one in attempts]"),),
        ),
        Code(
            _BatchWork._work_on,
            _BatchWork,
            (
                (
                    "attempts.draw_tokens(",
                    ASK_BEFORE + "attempts.draw_tokens(",
                ),
            ),
        ),
    ),
    _guard(
        "each_fence",
        "a group begins with the newest token of each of its units",
        Scenario("two groups, a pause", BOTH, 1, 1, "E", once=True, small=True, fault_rate=100),
        "P1",
        Sql("enter", ((ENTER, f"{ENTER}\nWHERE e.unit_id = (%(unit_ids)s::uuid[])[1]"),)),
    ),
    _guard(
        "ask_each",
        "history is read for each unit of a group",
        Scenario("two groups", BOTH, 1, 1, "E", once=True, small=True, fault_rate=100),
        "P3",
        Code(
            attempts.begin,
            steps,
            (
                (
                    "standing(connection, job, attempts)",
                    "standing(connection, job, attempts)[:1] * len(attempts)",
                ),
            ),
        ),
    ),
    _guard(
        "same_step",
        "a unit at another step leaves its group",
        Scenario(
            "a group and a half-done unit", (replace(TWO, tries=1), B1), 2, 1, "K", small=True
        ),
        "P5 P7",
        Code(steps._work, steps, ((" and (not inside or at.done == inside[0][1].done)", ""),)),
    ),
    _guard(
        "singles",
        "after a group failed, each of its units is done by itself",
        Scenario("group, one always fails", (TWO3,), 1, 0, small=True, fails=(0,)),
        "P10",
        Code(
            _BatchWork._after,
            _BatchWork,
            (("and groups.may_be_one_units(error)", "and False"),),
        ),
    ),
    _guard(
        "read_rows",
        "after a lost answer to COMMIT, the rows show how it ended",
        GROUP,
        "P11",
        Code(
            _BatchWork._fail,
            _BatchWork,
            (("ended = self._close(failed, error)", "ended = self._close(failed, error) and {}"),),
        ),
    ),
    _guard(
        "bad_alone",
        "a unit with an attempt in this round that did not succeed is done alone",
        Scenario("group, one always kills", (TWO3,), 1, 0, small=True, kills=(0,)),
        "P10",
        Code(
            UnitQueue.__init__, UnitQueue, (("is_alone = before is not None", "is_alone = False"),)
        ),
    ),
    _guard(
        "killer_last",
        "a unit that failed alone in this round comes last",
        Scenario("group, the first kills", (TWO3,), 1, 0, small=True, kills=(0,)),
        "P10",
        Code(UnitQueue.__init__, UnitQueue, (("2 if before.alone else 1", "1"),)),
    ),
    _guard(
        "claim_first",
        "an action is claimed before it is performed",
        ACTION,
        "P12",
        Code(
            effects.perform,
            steps,
            ((CLAIM, ""), ("effect.act(action)", "effect.act(action)" + CLAIM_LATE)),
        ),
    ),
    _guard(
        "claim_once",
        "a claimed action is not claimed again",
        ACTION,
        "P12",
        Sql("known_actions", (("a.unit_id = %(unit_id)s", "a.unit_id <> %(unit_id)s"),)),
        Sql(
            "claim_action",
            (("DO NOTHING", "DO UPDATE SET token = excluded.token, state = 'claimed'"),),
        ),
    ),
    _guard(
        "claim_fence",
        "an action is claimed only with the newest token",
        ACTION_E,
        "P1",
        Code(
            steps._perform,
            steps,
            (
                (
                    "if enter(connection, [attempt], limit):",
                    "if enter(connection, [attempt]) and 0:",
                ),
            ),
        ),
    ),
    _guard(
        "unknown_end",
        "only an action that was certainly not performed may be claimed again",
        replace(ACTION, fault_kinds="U"),
        "P12",
        Code(
            effects.perform,
            steps,
            (("except TransientError as error:", "except Exception as error:"),),
        ),
    ),
    _guard(
        "refused_letter",
        "an action that ends without being performed has a letter",
        replace(ACTION, fault_kinds="M"),
        "P13",
        Code(effects._end, effects, (("if ended is not None:", "if False:"),)),
    ),
    _guard(
        "abandoned_letter",
        "an abandoned claim has a letter",
        ACTION,
        "P13",
        Code(effects.write_abandoned, effects, (("_write(connection, run", "(connection, run"),)),
    ),
    _guard(
        "abandoned_at_finish",
        "finish looks for abandoned claims",
        replace(ACTION, runs=(A1,)),
        "P13",
        Code(
            finish.finish_run, finish, (("effects.write_abandoned(connection, job.name)", "pass"),)
        ),
    ),
    _guard(
        "record_late",
        "a process that was taken for dead records the action that it performed",
        ACTION_E,
        "P14",
        Sql("record_action", (("state IN ('claimed', 'unknown')", "state = 'claimed'"),)),
    ),
    _guard(
        "record_unfenced",
        "a process that lost its lease still records the action that it performed",
        ACTION_E,
        "P14",
        Code(
            effects.perform,
            steps,
            (
                (
                    "else:\n            try:\n                with connection.transaction():",
                    "else:\n            try:\n                with entered():",
                ),
                (
                    "its record meets\n                with connection.transaction():",
                    "its record meets\n                with entered():",
                ),
            ),
        ),
    ),
    _guard(
        "record_answers",
        "an action that is recorded late has no open letter",
        ACTION_E,
        "P14",
        Sql("answer_letter", (("kind = 'action'", "kind = 'item'"),)),
    ),
)
