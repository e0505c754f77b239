"""Batches: every venue exactly once, never too many tasks, tenants kept apart where possible."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random
from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from venue_analytics.harness import Unit, groups
from venue_analytics.harness.batches import Batch, pack

venues = st.lists(
    st.builds(
        Unit,
        id=st.uuids(),
        tenant_id=st.integers(1, 4).map(lambda number: UUID(int=number)),
        name=st.sampled_from(["Arena", "Ballroom", "Cellar", "Dome"]),
        expected_seconds=st.none() | st.floats(0, 1_000),
    ),
    max_size=60,
    unique_by=lambda venue: venue.id,
)


def venue(number: int, name: str, tenant: int = 1) -> Unit:
    return Unit(UUID(int=number << 96), UUID(int=tenant), name)


@given(venues=venues, max_tasks=st.integers(1, 40))
def test_every_venue_is_in_exactly_one_batch(venues: list[Unit], max_tasks: int) -> None:
    packed = [venue for batch in pack(venues, max_tasks=max_tasks) for venue in batch.units]
    assert sorted(packed, key=lambda v: v.id) == sorted(venues, key=lambda v: v.id)


@given(venues=venues, max_tasks=st.integers(1, 40))
def test_a_batch_has_venues_of_one_tenant_if_there_are_tasks_for_all_tenants(
    venues: list[Unit], max_tasks: int
) -> None:
    assume(len({venue.tenant_id for venue in venues}) <= max_tasks)
    for batch in pack(venues, max_tasks=max_tasks):
        assert len({venue.tenant_id for venue in batch.units}) == 1


@given(venues=venues, max_tasks=st.integers(1, 40))
def test_there_are_no_more_batches_than_allowed_however_many_tenants(
    venues: list[Unit], max_tasks: int
) -> None:
    assert len(pack(venues, max_tasks=max_tasks)) <= max_tasks


@given(venues=venues, max_tasks=st.integers(1, 40))
def test_a_batch_consists_of_groups_of_at_most_two_seconds_and_fifty_venues(
    venues: list[Unit], max_tasks: int
) -> None:
    cut = []
    for batch in pack(venues, max_tasks=max_tasks):
        cut += list(groups.cut(batch.units, lambda venue: venue, lambda v: groups.likeness(v, {})))
    assert sum(map(len, cut)) == len(venues)
    for group in cut:
        assert len(group) <= 50
        assert len({venue.tenant_id for venue in group}) == 1
        took = [groups.expected_seconds(venue) for venue in group]
        # within two seconds, or a few small venues
        is_short = sum(took) < 2.001
        assert len(group) == 1 or is_short or (len(group) <= 10 and sum(took) <= 10 * 0.5)


@given(venues=venues)
def test_at_most_one_task_of_a_tenant_is_less_than_half_full(
    venues: list[Unit],
) -> None:
    packed = pack(venues, max_tasks=1_000)
    for tenant in {venue.tenant_id for venue in venues}:
        tasks = [batch.units for batch in packed if batch.units[0].tenant_id == tenant]
        small = [t for t in tasks if sum(map(groups.expected_seconds, t)) <= 1 and len(t) < 50]
        assert len(small) <= 1


def test_the_fixed_cost_of_a_transaction_does_not_shrink_groups_night_after_night() -> None:
    venues = [venue(number, f"Hall {number}") for number in range(1_000)]
    took = dict.fromkeys((v.id for v in venues), 0.001)
    for _ in range(10):
        measured = [replace(v, expected_seconds=took[v.id]) for v in venues]
        cut = list(groups.cut(measured, lambda v: v, lambda v: groups.likeness(v, {})))
        # each transaction costs four seconds whatever its size, shared by its venues
        took = {v.id: 0.001 + 4 / len(group) for group in cut for v in group}
    assert len(cut) <= 110


def test_venues_that_have_other_rules_or_are_gone_or_moved_share_no_group() -> None:
    plain = [venue(n, f"Hall {n}") for n in range(4)]
    gone = replace(venue(5, "Hall 5"), gone=True)
    moved = replace(venue(6, "Hall 6"), former_tenant_id=UUID(int=9))
    ruled = [venue(n, f"Hall {n}") for n in (7, 8)]
    overrides = {v.id: {"monetary_percent": [1, 2, 3, 4]} for v in ruled}
    packed = pack([*plain, gone, moved, *ruled], max_tasks=50, overrides=overrides)
    assert sorted([v.name for v in batch.units] for batch in packed) == [
        ["Hall 0", "Hall 1", "Hall 2", "Hall 3"],
        ["Hall 5"],
        ["Hall 6"],
        ["Hall 7", "Hall 8"],
    ]


@given(venues=venues, max_tasks=st.integers(1, 40), shuffle=st.randoms())
def test_the_order_of_the_source_does_not_matter(
    venues: list[Unit], max_tasks: int, shuffle: Random
) -> None:
    other = list(venues)
    shuffle.shuffle(other)
    assert pack(other, max_tasks=max_tasks) == pack(venues, max_tasks=max_tasks)


@given(venues=venues)
def test_tasks_of_one_venue_have_unique_labels(venues: list[Unit]) -> None:
    labels = [batch.label for batch in pack(large(venues), max_tasks=60)]
    assert len(set(labels)) == len(labels)


def test_batches_are_numbered_from_0() -> None:
    packed = pack(large([venue(n, "Arena") for n in range(1, 8)]), max_tasks=3)
    assert [batch.number for batch in packed] == [0, 1, 2]


def test_a_task_of_one_venue_has_its_name() -> None:
    assert [batch.label for batch in pack([venue(1, "Arena")], max_tasks=5)] == ["Arena"]


def test_a_task_of_several_venues_shows_their_number_and_the_first_names() -> None:
    packed = pack([venue(n, f"Hall {n}") for n in (3, 1, 2)], max_tasks=1)
    assert [batch.label for batch in packed] == ["3 venues: Hall 1, Hall 2, Hall 3"]
    (many,) = pack([venue(n, f"Hall {n}") for n in range(10, 40)], max_tasks=1)
    assert many.label.startswith("30 venues: Hall 10, Hall 11")
    assert many.label.endswith(" …")
    assert len(many.label) < 120


def test_venues_with_the_same_name_are_distinguished_by_their_ids() -> None:
    packed = pack([venue(1, "Arena"), venue(2, "Arena", tenant=2), venue(3, "Dome")], max_tasks=5)
    assert [batch.label for batch in packed] == ["2 venues: Arena, Dome", "Arena (00000002)"]


def test_1500_venues_of_three_tenants_fill_the_default_number_of_tasks_evenly() -> None:
    packed = pack(large([venue(n, f"Hall {n}", tenant=n % 3) for n in range(1_500)]), max_tasks=200)
    # 500 venues a tenant in 66 or 67 tasks: 7 or 8 venues each
    assert len(packed) == 200
    assert {len(batch.units) for batch in packed} == {7, 8}


def test_10_000_small_venues_of_a_tenant_fill_a_few_groups_per_task() -> None:
    small = [replace(venue(n, f"Hall {n}"), expected_seconds=0.005) for n in range(10_000)]
    packed = pack(small, max_tasks=50)
    assert {len(batch.units) for batch in packed} == {200}


# balanced by the last durations -----------------------------------------------------------

# a venue of two seconds or more is a group by itself
seconds = st.integers(2, 50).map(float)
timed = st.lists(seconds, min_size=1, max_size=7).map(
    lambda took: [timed_venue(number, each) for number, each in enumerate(took)]
)


def timed_venue(number: int, took: float | None, tenant: int = 1) -> Unit:
    return replace(venue(number, f"Hall {number}", tenant), expected_seconds=took)


def large(venues: list[Unit]) -> list[Unit]:
    """Return venues that are so large that each is a group by itself."""
    return [replace(venue, expected_seconds=groups.SECONDS) for venue in venues]


def load(batch: Batch) -> float:
    return sum(venue.expected_seconds or 0 for venue in batch.units)


def shortest_night(venues: list[Unit], tasks: int) -> float:
    """Return the shortest possible time of the longest task, by trying every distribution."""
    took = [venue.expected_seconds or 0 for venue in venues]
    return min(
        max(
            sum(each for each, to in zip(took, dealt, strict=True) if to == task)
            for task in range(tasks)
        )
        for dealt in product(range(tasks), repeat=len(took))
    )


@given(venues=timed, max_tasks=st.integers(1, 4))
def test_the_longest_batch_takes_at_most_a_third_longer_than_the_optimum(
    venues: list[Unit], max_tasks: int
) -> None:
    longest = max(load(batch) for batch in pack(venues, max_tasks=max_tasks))
    best = shortest_night(venues, max_tasks)
    # Graham 1969, bound of the LPT rule: 4/3 - 1/(3m)
    assert longest <= best * (4 / 3 - 1 / (3 * max_tasks)) + 1e-9


@given(venues=timed, large=st.floats(400, 10_000), max_tasks=st.integers(2, 4))
def test_a_venue_larger_than_all_others_together_is_alone(
    venues: list[Unit], large: float, max_tasks: int
) -> None:
    packed = pack([*venues, timed_venue(99, large)], max_tasks=max_tasks)
    assert [venue.name for venue in packed[0].units] == ["Hall 99"]


@given(venues=timed, max_tasks=st.integers(1, 4))
def test_batches_and_the_venues_in_them_are_ordered_longest_first(
    venues: list[Unit], max_tasks: int
) -> None:
    packed = pack(venues, max_tasks=max_tasks)
    loads = [load(batch) for batch in packed]
    assert loads == sorted(loads, reverse=True)
    for batch in packed:
        took = [venue.expected_seconds or 0 for venue in batch.units]
        assert took == sorted(took, reverse=True)


def test_a_venue_without_a_duration_counts_as_a_twentieth_of_a_group() -> None:
    packed = pack([timed_venue(n, None) for n in range(21)], max_tasks=2)
    assert [len(batch.units) for batch in packed] == [20, 1]


def test_the_tenant_whose_venues_take_longest_has_more_tasks() -> None:
    long = [timed_venue(n, 60.0, tenant=1) for n in range(4)]
    short = [timed_venue(n, 2.0, tenant=2) for n in range(4, 8)]
    packed = pack([*short, *long], max_tasks=5)
    assert [len(batch.units) for batch in packed] == [1, 1, 1, 1, 4]


def test_venues_that_take_no_time_are_spread_evenly_too() -> None:
    packed = pack([timed_venue(n, 0.0) for n in range(200)], max_tasks=4)
    assert [len(batch.units) for batch in packed] == [50, 50, 50, 50]
