"""The protocol's properties hold in every reachable state, and each of its clauses is needed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.harness.protocol.model import CLAUSES, PROTOCOL, Model, Run, Scenario
from tests.harness.protocol.search import Found, explore

#: Of more states than this, only the nearest are visited, and P8 is not checked.
MOST = 150_000
ANY = "KZEFGTMAW"
ONE, TWO = ((0,),), ((0, 1),)
# the same night in two deployments, with a retry and without; an older and a forced night; other
# rules; the command line; batches of two venues
A, B = Run("A", 2, 1, ONE), Run("B", 2, 1, ONE)
A1, B1 = A._replace(tries=1), B._replace(tries=1)
OLD, FORCED = Run("O", 1, 1, ONE), Run("F", 1, 1, ONE, 2, True)
OLD1, FORCED1 = OLD._replace(tries=1), FORCED._replace(tries=1)
RULES, CLI = Run("M", 2, 2, ONE), Run("C", 2, 1, ONE, 1)
RULES1 = RULES._replace(tries=1)
EDITED = A._replace(edit=2)
PAIR, OTHER_WAY_ROUND = Run("A", 2, 1, TWO), Run("B", 2, 1, ((1, 0),), 1)
PAIR1, PAIR3 = PAIR._replace(tries=1), PAIR._replace(tries=3)
FORCED_PAIR = Run("F", 1, 1, TWO, 2, True)
TWO_BATCHES = Run("A", 2, 1, ((0,), (1,)))


def scenario(
    name: str,
    runs: tuple[Run, ...],
    steps: int = 1,
    faults: tuple[int, str] = (0, ""),
    clicks: tuple[int, str] = (0, ""),
    **more: Any,
) -> Scenario:
    venues = 1 + max(v for run in runs for batch in run.batches for v in batch)
    return Scenario(name, runs, venues, steps, *faults, *clicks, **more)


QUICK = [
    scenario("two deployments", (A, B), 1, (1, "K"), once=True),
    scenario("a failed batch is cleared", (A,), 1, (1, "KZE"), (1, "fs"), once=True),
    scenario("group", (PAIR,), 1, (1, ANY), once=True, group=2),
    scenario("group, cleared", (PAIR,), 1, (1, "TK"), (1, "fs"), once=True, group=2),
    scenario("group of two steps", (PAIR,), 2, (1, "KT"), once=True, group=2),
    scenario("group, answer lost", (PAIR,), 1, (1, "A"), once=True, group=2),
    scenario("group, one always fails", (PAIR3,), once=True, group=2, fails=(0,)),
    scenario("group, the first kills", (PAIR3,), once=True, group=2, kills=(0,)),
    scenario("group, the second kills", (PAIR3,), once=True, group=2, kills=(1,)),
    scenario("older beside", (A1, OLD), 1, (1, "K"), once=True),
    scenario("forced beside", (A1, FORCED), 1, (1, "K")),
    scenario("other rules beside", (A1, RULES), 1, (1, "KE")),
    scenario("two venues", (PAIR,), 1, (1, "MT"), (1, "fs"), once=True),
    scenario("two groups, a pause", (PAIR1, OTHER_WAY_ROUND), 1, (1, "E"), once=True, group=2),
    scenario("a group and a half-done venue", (PAIR1, B1), 2, (1, "K"), once=True, group=2),
]
DEEP = [
    scenario("two deployments, any fault", (A, B), 1, (1, ANY), once=True),
    scenario("two deployments, two faults", (A, B), 1, (2, "KEA"), once=True),
    scenario("two deployments, lost and killed", (A, B), 1, (2, "KZ"), once=True),
    scenario("two deployments, a click", (A, B1), 1, (1, "KZ"), (1, "fs"), once=True),
    scenario("one run, three faults", (A,), 1, (3, "KZEFGTMA"), once=True),
    scenario("one run, two faults, a click", (A,), 1, (2, "KZE"), (1, "fswm"), once=True),
    scenario("one run, two clicks", (A,), 1, (1, "KZ"), (2, "fswm"), once=True),
    scenario("one run, a permanent failure", (A,), 1, (2, "KZM"), (1, "fs"), once=True),
    scenario("two venues, any fault", (PAIR,), 1, (1, ANY), (1, "fs"), once=True),
    scenario("two batches", (TWO_BATCHES,), 1, (1, "KT"), (1, "fsw"), once=True),
    scenario("older beside, a click", (A1, OLD), 1, (1, "KZE"), (1, "fs"), once=True),
    scenario("forced beside, a click", (A1, FORCED), 1, (1, "KZET"), (1, "fs")),
    scenario("forced, two venues", (FORCED_PAIR,), 1, (1, ANY), (1, "fs")),
    scenario("other rules beside, a click", (A1, RULES), 1, (1, "KZET"), (1, "fs")),
    scenario("edited, all cleared", (EDITED,), 1, (2, "KZ"), (1, "w")),
    scenario("two steps, edited", (EDITED,), 2, (1, ANY), (1, "fswm")),
    scenario("two steps, cleared", (A,), 2, (1, "KZE"), (1, "s"), once=True),
    scenario("two steps, two deployments", (A, B), 2, (1, ANY), once=True),
    scenario("two steps, other rules", (A1, RULES1), 2, (2, "KE"), (1, "f")),
    scenario("two steps, three runs", (A1, B1, RULES1), 2, (1, "K")),
    scenario("two steps, forced older", (A1, FORCED1), 2, (1, "KZE"), (1, "f")),
    scenario("two steps, forced beside two", (A1, B1, FORCED1), 2, (1, "K")),
    scenario("three runs", (A1, CLI, OLD1), 1, (1, "KE"), once=True),
    scenario("group, two faults, a click", (PAIR,), 1, (2, ANY), (1, "fs"), once=True, group=2),
    scenario("group, edited", (PAIR._replace(edit=2),), 1, (1, ANY), (1, "fswm"), group=2),
    scenario("group of two steps, any fault", (PAIR,), 2, (1, ANY), (1, "fs"), group=2),
    scenario("forced group", (FORCED_PAIR,), 1, (1, ANY), (1, "fs"), group=2),
    scenario("two groups", (PAIR1, OTHER_WAY_ROUND), 1, (1, ANY), once=True, group=2),
    scenario("two groups of two steps", (PAIR1, OTHER_WAY_ROUND), 2, (1, "KEA"), group=2),
]
SCENARIOS = {one.name: one for one in QUICK + DEEP}
#: For each clause, the scenario in which a property breaks without it; and the properties to check,
#: if a violation of another would hide the one that matters.
NEEDED: dict[str, tuple[str, set[str] | None]] = {
    "clear_number": ("two deployments", None),
    "fresh_round": ("forced beside", None),
    "rules_order": ("other rules beside", None),
    "lazy_round": ("two deployments, lost and killed", None),
    "plan_order": ("edited, all cleared", None),
    "draw_cas": ("two deployments", None),
    "finish_asks": ("one run, a permanent failure", None),
    "ckpt_blocks": ("two steps, forced beside two", None),
    "fence": ("two deployments, two faults", None),
    "take_later": ("one run, a permanent failure", None),
    "reconcile_lease": ("two deployments", None),
    "rounds": ("two venues", None),
    "close_in_commit": ("two deployments", {"P3", "P7"}),
    "close_before_release": ("two deployments", {"P2", "P3"}),
    "check_after_draw": ("two deployments, two faults", None),
    "newer": ("older beside", None),
    "lease_excl": ("two deployments", None),
    "ckpt_tag": ("two steps, other rules", None),
    "reconcile_draw": ("two deployments, two faults", None),
    "latest": ("other rules beside", None),
    "each_fence": ("two groups, a pause", None),
    "ask_each": ("two groups, a pause", None),
    "same_step": ("a group and a half-done venue", None),
    "singles": ("group, one always fails", None),
    "read_rows": ("group, answer lost", None),
    "bad_alone": ("group, the first kills", None),
    "killer_last": ("group, the first kills", None),
}
#: These clauses save time or report an outcome sooner; no property depends on them.
HARMLESS = PROTOCOL - NEEDED.keys()
LONG = {
    "check_after_draw",
    "ckpt_blocks",
    "ckpt_tag",
    "lazy_round",
    "lease_excl",
    "plan_order",
    "take_later",
}


def in_lines(found: Found) -> str:
    return "\n".join([found.violated or "", *found.trace])


@pytest.mark.parametrize("name", [one.name for one in QUICK])
def test_the_properties_hold_in_every_state(name: str) -> None:
    found = explore(Model(SCENARIOS[name]))
    assert found.violated is None, in_lines(found)


@pytest.mark.deep
@pytest.mark.parametrize("name", [one.name for one in DEEP])
def test_the_properties_hold_in_every_state_of_a_larger_scenario(name: str) -> None:
    found = explore(Model(SCENARIOS[name]), most=MOST)
    assert found.violated is None, in_lines(found)


@pytest.mark.parametrize(
    "clause", [pytest.param(c, marks=pytest.mark.deep if c in LONG else ()) for c in NEEDED]
)
def test_without_a_clause_a_property_breaks(clause: str) -> None:
    name, properties = NEEDED[clause]
    found = explore(Model(SCENARIOS[name], PROTOCOL - {clause}, properties))
    assert found.violated is not None, f"nothing breaks without the clause: {CLAUSES[clause]}"


@pytest.mark.deep
@pytest.mark.parametrize("clause", sorted(HARMLESS))
@pytest.mark.parametrize(
    "name",
    ["two deployments, two faults", "a failed batch is cleared", "two steps, cleared", "group"],
)
def test_no_property_depends_on_a_clause_that_only_saves_time(clause: str, name: str) -> None:
    found = explore(Model(SCENARIOS[name], PROTOCOL - {clause}), most=MOST)
    assert found.violated is None, in_lines(found)
