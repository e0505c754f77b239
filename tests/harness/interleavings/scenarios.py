"""The scenarios of the model: which runs there are, which faults happen, and what users click."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

#: Faults. K SIGKILL; Z Airflow gives up a living process; E a pause past the lease; F Redis is
#: flushed; G PostgreSQL restarts; T transient and M permanent error of a step; A committed, but
#: the connection is lost; W a wait is too long; R Redis does not answer; U an action raises an
#: error that leaves open whether it was performed.
ALL = "KZEFGTMAWRU"
#: Without a restart of PostgreSQL, after which no process can record anything.
OF_EFFECTS = "KZEFTMAWRU"
#: Clicks. f clear the failed tasks; s clear a success; w clear the whole run (with the rules
#: edited where the run says so); m mark failed.


@dataclass(frozen=True)
class Run:
    """A run in Airflow.

    Attributes:
        name: also its id.
        night: the number of the night that its results are as of.
        rules: the rules in its settings.
        batches: the units of each batch.
        tries: the tries of a task.
        force: whether it replaces newer results.
        edit: the rules after an edit; None without one.
        deployment: the deployment that it belongs to.
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
        """The moment that its results are as of."""
        return datetime(2025, 1, 1, 2, tzinfo=UTC) + timedelta(days=self.night)


@dataclass(frozen=True)
class Scenario:
    """What happens in an episode.

    Attributes:
        name: its description.
        runs: the runs, all at once.
        steps: the number of the job's steps.
        faults: the maximum number of faults.
        fault_kinds: letters of `ALL`.
        clicks: the maximum number of clicks.
        click_kinds: letters, as above.
        once: whether each unit must be computed only once, unless there is a click.
        small: whether units are small, so that a batch takes them together.
        grouped: whether units that are taken together share transactions.
        fails: units whose data are always bad.
        kills: units that always kill their worker.
        actions: how many actions each unit has before the last step.
        is_even: whether all processes are equally fast.
        fault_rate: how many of 1,000 moves are faults, while any are left.
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
    actions: int = 0
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
    Scenario("batch of two units", (TWO,), 1, 1, ALL, 1, "fs", once=True),
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
    Scenario("a group and a half-done unit", (replace(TWO, tries=1), B1), 2, 1, "K", small=True),
    Scenario("group, one always fails", (TWO3,), 1, 0, once=True, small=True, fails=(0,)),
    Scenario("group, one always kills", (TWO3,), 1, 0, once=True, small=True, kills=(0,)),
    Scenario("two batches", (replace(A, batches=((0,), (1,))),), 1, 1, "KT", 1, "fsw", once=True),
    Scenario("older backfill beside", (A1, OLD), 1, 1, "KZE", 1, "fs", once=True),
    Scenario("forced older run beside", (A1, FORCED), 1, 1, "KZET", 1, "fs"),
    Scenario("forced run, two units", (FORCED_TWO,), 1, 1, ALL, 1, "fs"),
    Scenario("other rules beside", (A1, RULES2), 1, 1, "KZET", 1, "fs"),
    Scenario("rules edited, all cleared", (replace(A, edit=2),), 1, 2, "KZ", 1, "w"),
    Scenario("two steps, edited", (replace(A, edit=2),), 2, 1, ALL, 1, "fswm"),
    Scenario("two steps, two deployments", (A, B), 2, 1, ALL, once=True),
    Scenario("two steps, other rules", (A1, RULES2_1), 2, 2, "KE", 1, "f"),
    Scenario("two steps, three runs", (A1, B1, RULES2_1), 2, 1, "K"),
    Scenario("two steps, forced older", (A1, replace(FORCED, tries=1)), 2, 1, "KZE", 1, "f"),
    Scenario("two steps, forced, other deployment", (A1, B1, replace(FORCED, tries=1)), 2, 1, "K"),
    Scenario("an effect", (A,), 1, 2, OF_EFFECTS, 1, "fs", once=True, actions=2),
    Scenario("an effect between two steps", (A, B), 2, 2, OF_EFFECTS, once=True, actions=1),
    Scenario("effects of a group", (TWO,), 2, 2, OF_EFFECTS, 1, "fsw", small=True, actions=1),
    Scenario("three runs", (A1, COMMAND_LINE, replace(OLD, tries=1)), 1, 1, "KE", once=True),
)
