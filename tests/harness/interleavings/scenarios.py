"""Which runs there are, what may go wrong, and what people do: the scenarios of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

#: Faults. K SIGKILL; Z Airflow gives a living process up; E a pause past the lease; F Redis is
#: flushed; G PostgreSQL restarts; T transient and M permanent error of a step; A committed, but
#: the connection is lost; W waited too long; R Redis does not answer.
ALL = "KZEFGTMAWR"
#: Clicks. f clear the failed tasks; s clear a success; w clear the whole run (with the rules
#: edited where the run says so); m mark failed.


@dataclass(frozen=True)
class Run:
    """A run as Airflow has it.

    Attributes:
        name: also its id.
        night: what its results are as of, in nights.
        rules: of its settings.
        batches: the venues of each.
        tries: of a task.
        force: whether newer results are replaced.
        edit: the rules after an edit; None if nobody edits.
        deployment: whose run it is.
    """

    name: str
    night: int = 2
    rules: int = 1
    batches: tuple[tuple[int, ...], ...] = ((0,),)
    tries: int = 2
    force: bool = False
    edit: int | None = None
    deployment: int = 1

    @property
    def as_of(self) -> datetime:
        """The moment of its night."""
        return datetime(2025, 1, 1, 2, tzinfo=UTC) + timedelta(days=self.night)


@dataclass(frozen=True)
class Scenario:
    """What happens in an episode.

    Attributes:
        name: in words.
        runs: the runs, all at once.
        steps: of the job.
        faults: at the most.
        fault_kinds: letters of `ALL`.
        clicks: at the most.
        click_kinds: letters, as above.
        once: whether each venue is to be computed once, but for clicks.
        small: whether venues are small, so that a batch takes them together.
        grouped: whether those that are taken together share transactions.
        fails: venues whose data are always bad.
        kills: venues that always kill their worker.
        is_even: whether all processes are equally fast.
        fault_rate: of 1,000 moves so many are faults, while some may come.
    """

    name: str
    runs: tuple[Run, ...]
    steps: int = 1
    faults: int = 1
    fault_kinds: str = ALL
    clicks: int = 0
    click_kinds: str = ""
    once: bool = False
    small: bool = False
    grouped: bool = True
    fails: tuple[int, ...] = ()
    kills: tuple[int, ...] = ()
    is_even: bool = False
    fault_rate: int = 40


A, B = Run("A"), Run("B", deployment=2)
A1, B1 = replace(A, tries=1), replace(B, tries=1)
OLD = Run("older", night=1)
FORCED = Run("forced", night=1, force=True)
RULES2, RULES2_1 = Run("other rules", rules=2), Run("other rules", rules=2, tries=1)
COMMAND_LINE = Run("C", tries=1, deployment=3)
TWO, TWO_B = replace(A, batches=((0, 1),)), replace(B, batches=((0, 1),))
TWO3 = replace(TWO, tries=3)
FORCED_TWO = replace(FORCED, batches=((0, 1),))

SCENARIOS = (
    Scenario("two deployments, any fault", (A, B), once=True),
    Scenario("two deployments, two faults", (A, B), 1, 2, "KEA", once=True),
    Scenario("two deployments, a click", (A, B1), 1, 1, "KZ", 1, "fs", once=True),
    Scenario("one run, three faults", (A,), 1, 3, once=True),
    Scenario("one run, two faults, a click", (A,), 1, 2, "KZE", 1, "fswm", once=True),
    Scenario("one run, two clicks", (A,), 1, 1, "KZ", 2, "fswm", once=True),
    Scenario("batch of two venues", (TWO,), 1, 1, ALL, 1, "fs", once=True),
    Scenario(
        "two taken together", (TWO,), 1, 1, ALL, 1, "fs", once=True, small=True, grouped=False
    ),
    Scenario("group", (TWO,), 1, 1, ALL, 1, "fs", once=True, small=True),
    Scenario("group, two faults", (TWO,), 1, 2, "KEAT", once=True, small=True),
    Scenario("group of two steps", (TWO,), 2, 1, ALL, 1, "fs", once=True, small=True),
    Scenario("groups in two deployments", (TWO, TWO_B), 1, 1, once=True, small=True),
    Scenario("groups of two steps in two deployments", (TWO, TWO_B), 2, 1, small=True),
    Scenario("group, edited", (replace(TWO, edit=2),), 1, 1, ALL, 1, "fswm", small=True),
    Scenario("group, forced", (FORCED_TWO,), 1, 1, ALL, 1, "fs", small=True),
    Scenario("a group and a half-done venue", (replace(TWO, tries=1), B1), 2, 1, "K", small=True),
    Scenario("group, one always fails", (TWO3,), 1, 0, once=True, small=True, fails=(0,)),
    Scenario("group, one always kills", (TWO3,), 1, 0, once=True, small=True, kills=(0,)),
    Scenario("two batches", (replace(A, batches=((0,), (1,))),), 1, 1, "KT", 1, "fsw", once=True),
    Scenario("older backfill beside", (A1, OLD), 1, 1, "KZE", 1, "fs", once=True),
    Scenario("forced older run beside", (A1, FORCED), 1, 1, "KZET", 1, "fs"),
    Scenario("forced run, two venues", (FORCED_TWO,), 1, 1, ALL, 1, "fs"),
    Scenario("other rules beside", (A1, RULES2), 1, 1, "KZET", 1, "fs"),
    Scenario("rules edited, all cleared", (replace(A, edit=2),), 1, 2, "KZ", 1, "w"),
    Scenario("two steps, edited", (replace(A, edit=2),), 2, 1, ALL, 1, "fswm"),
    Scenario("two steps, two deployments", (A, B), 2, 1, ALL, once=True),
    Scenario("two steps, other rules", (A1, RULES2_1), 2, 2, "KE", 1, "f"),
    Scenario("two steps, three runs", (A1, B1, RULES2_1), 2, 1, "K"),
    Scenario("two steps, forced older", (A1, replace(FORCED, tries=1)), 2, 1, "KZE", 1, "f"),
    Scenario("two steps, forced, other deployment", (A1, B1, replace(FORCED, tries=1)), 2, 1, "K"),
    Scenario("three runs", (A1, COMMAND_LINE, replace(OLD, tries=1)), 1, 1, "KE", once=True),
)
