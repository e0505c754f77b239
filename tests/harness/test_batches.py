"""Batches: every venue exactly once, never too many tasks, tenants apart where that fits."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random
from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from venue_analytics.harness import Venue, groups
from venue_analytics.harness.batches import Batch, pack

venues = st.lists(
    st.builds(
        Venue,
        venue_id=st.uuids(),
        tenant_id=st.integers(1, 4).map(lambda number: UUID(int=number)),
        name=st.sampled_from(["Arena", "Ballroom", "Cellar", "Dome"]),
        expected_seconds=st.none() | st.floats(0, 1_000),
    ),
    max_size=60,
    unique_by=lambda venue: venue.venue_id,
)


def venue(number: int, name: str, tenant: int = 1) -> Venue:
    return Venue(UUID(int=number << 96), UUID(int=tenant), name)


@given(venues=venues, max_tasks=st.integers(1, 40))
def test_every_venue_is_in_exactly_one_batch(venues: list[Venue], max_tasks: int) -> None:
    packed = [venue for batch in pack(venues, max_tasks=max_tasks) for venue in batch.venues]
    assert sorted(packed, key=lambda v: v.venue_id) == sorted(venues, key=lambda v: v.venue_id)


@given(venues=venues, max_tasks=st.integers(1, 40))
def test_a_batch_has_venues_of_one_tenant_where_there_are_tasks_for_all_tenants(
    venues: list[Venue], max_tasks: int
) -> None:
    assume(len({venue.tenant_id for venue in venues}) <= max_tasks)
    for batch in pack(venues, max_tasks=max_tasks):
        assert len({venue.tenant_id for venue in batch.venues}) == 1


@given(venues=venues, max_tasks=st.integers(1, 40))
def test_there_are_no_more_batches_than_allowed_however_many_tenants(
    venues: list[Venue], max_tasks: int
) -> None:
    assert len(pack(venues, max_tasks=max_tasks)) <= max_tasks


@given(venues=venues, max_tasks=st.integers(1, 40))
def test_a_batch_is_whole_groups_of_two_seconds_and_of_fifty_venues_at_the_most(
    venues: list[Venue], max_tasks: int
) -> None:
    cut = []
    for batch in pack(venues, max_tasks=max_tasks):
        cut += list(groups.cut(batch.venues, lambda venue: venue, lambda v: groups.likeness(v, {})))
    assert sum(map(len, cut)) == len(venues)
    for group in cut:
        assert len(group) <= 50
        assert len({venue.tenant_id for venue in group}) == 1
        took = [groups.expected_seconds(venue) for venue in group]
        # in two seconds, or few small ones
        is_short = sum(took) < 2.001
        assert len(group) == 1 or is_short or (len(group) <= 10 and sum(took) <= 10 * 0.5)


@given(venues=venues)
def test_there_are_no_more_groups_than_the_work_of_a_tenant_fills_twice_over(
    venues: list[Venue],
) -> None:
    packed = pack(venues, max_tasks=1_000)
    for tenant in {venue.tenant_id for venue in venues}:
        tasks = [batch.venues for batch in packed if batch.venues[0].tenant_id == tenant]
        small = [t for t in tasks if sum(map(groups.expected_seconds, t)) <= 1 and len(t) < 50]
        assert len(small) <= 1


def test_what_a_transaction_costs_by_itself_makes_groups_no_smaller_night_after_night() -> None:
    venues = [venue(number, f"Hall {number}") for number in range(1_000)]
    took = dict.fromkeys((v.venue_id for v in venues), 0.001)
    for _ in range(10):
        measured = [replace(v, expected_seconds=took[v.venue_id]) for v in venues]
        cut = list(groups.cut(measured, lambda v: v, lambda v: groups.likeness(v, {})))
        # four seconds a transaction, whoever is in it, are booked on its venues
        took = {v.venue_id: 0.001 + 4 / len(group) for group in cut for v in group}
    assert len(cut) <= 110


def test_venues_of_other_rules_and_those_that_go_or_move_share_no_group() -> None:
    plain = [venue(n, f"Hall {n}") for n in range(4)]
    gone = replace(venue(5, "Hall 5"), gone=True)
    moved = replace(venue(6, "Hall 6"), former_tenant_id=UUID(int=9))
    ruled = [venue(n, f"Hall {n}") for n in (7, 8)]
    overrides = {v.venue_id: {"monetary_percent": [1, 2, 3, 4]} for v in ruled}
    packed = pack([*plain, gone, moved, *ruled], max_tasks=50, overrides=overrides)
    assert sorted([v.name for v in batch.venues] for batch in packed) == [
        ["Hall 0", "Hall 1", "Hall 2", "Hall 3"],
        ["Hall 5"],
        ["Hall 6"],
        ["Hall 7", "Hall 8"],
    ]


@given(venues=venues, max_tasks=st.integers(1, 40), shuffle=st.randoms())
def test_the_order_of_the_source_does_not_matter(
    venues: list[Venue], max_tasks: int, shuffle: Random
) -> None:
    other = list(venues)
    shuffle.shuffle(other)
    assert pack(other, max_tasks=max_tasks) == pack(venues, max_tasks=max_tasks)


@given(venues=venues)
def test_tasks_of_one_venue_have_labels_of_their_own(venues: list[Venue]) -> None:
    labels = [batch.label for batch in pack(large(venues), max_tasks=60)]
    assert len(set(labels)) == len(labels)


def test_batches_are_numbered_from_0() -> None:
    packed = pack(large([venue(n, "Arena") for n in range(1, 8)]), max_tasks=3)
    assert [batch.number for batch in packed] == [0, 1, 2]


def test_a_task_of_one_venue_bears_its_name() -> None:
    assert [batch.label for batch in pack([venue(1, "Arena")], max_tasks=5)] == ["Arena"]


def test_a_task_of_several_venues_says_how_many_and_names_the_first() -> None:
    packed = pack([venue(n, f"Hall {n}") for n in (3, 1, 2)], max_tasks=1)
    assert [batch.label for batch in packed] == ["3 venues: Hall 1, Hall 2, Hall 3"]
    (many,) = pack([venue(n, f"Hall {n}") for n in range(10, 40)], max_tasks=1)
    assert many.label.startswith("30 venues: Hall 10, Hall 11")
    assert many.label.endswith(" …")
    assert len(many.label) < 120


def test_venues_of_one_name_are_told_apart_by_their_ids() -> None:
    packed = pack([venue(1, "Arena"), venue(2, "Arena", tenant=2), venue(3, "Dome")], max_tasks=5)
    assert [batch.label for batch in packed] == ["2 venues: Arena, Dome", "Arena (00000002)"]


def test_1500_venues_of_three_tenants_fill_the_default_number_of_tasks_evenly() -> None:
    packed = pack(large([venue(n, f"Hall {n}", tenant=n % 3) for n in range(1_500)]), max_tasks=200)
    # 500 venues a tenant in 66 or 67 tasks: 7 or 8 venues each
    assert len(packed) == 200
    assert {len(batch.venues) for batch in packed} == {7, 8}


def test_10_000_small_venues_of_a_tenant_are_a_few_full_groups_a_task() -> None:
    small = [replace(venue(n, f"Hall {n}"), expected_seconds=0.005) for n in range(10_000)]
    packed = pack(small, max_tasks=50)
    assert {len(batch.venues) for batch in packed} == {200}


# balanced by what venues took last --------------------------------------------------------

# from two seconds on, a venue is a group by itself
seconds = st.integers(2, 50).map(float)
timed = st.lists(seconds, min_size=1, max_size=7).map(
    lambda took: [timed_venue(number, each) for number, each in enumerate(took)]
)


def timed_venue(number: int, took: float | None, tenant: int = 1) -> Venue:
    return replace(venue(number, f"Hall {number}", tenant), expected_seconds=took)


def large(venues: list[Venue]) -> list[Venue]:
    """Each a group by itself."""
    return [replace(venue, expected_seconds=groups.SECONDS) for venue in venues]


def load(batch: Batch) -> float:
    return sum(venue.expected_seconds or 0 for venue in batch.venues)


def shortest_night(venues: list[Venue], tasks: int) -> float:
    """The least that the longest of so many tasks can take, by trying every way to share."""
    took = [venue.expected_seconds or 0 for venue in venues]
    return min(
        max(
            sum(each for each, to in zip(took, dealt, strict=True) if to == task)
            for task in range(tasks)
        )
        for dealt in product(range(tasks), repeat=len(took))
    )


@given(venues=timed, max_tasks=st.integers(1, 4))
def test_the_longest_batch_takes_at_most_a_third_longer_than_the_best_there_is(
    venues: list[Venue], max_tasks: int
) -> None:
    longest = max(load(batch) for batch in pack(venues, max_tasks=max_tasks))
    best = shortest_night(venues, max_tasks)
    # Graham 1969, of the longest processing time first: 4/3 - 1/(3m)
    assert longest <= best * (4 / 3 - 1 / (3 * max_tasks)) + 1e-9


@given(venues=timed, large=st.floats(400, 10_000), max_tasks=st.integers(2, 4))
def test_a_venue_larger_than_all_others_together_is_alone(
    venues: list[Venue], large: float, max_tasks: int
) -> None:
    packed = pack([*venues, timed_venue(99, large)], max_tasks=max_tasks)
    assert [venue.name for venue in packed[0].venues] == ["Hall 99"]


@given(venues=timed, max_tasks=st.integers(1, 4))
def test_batches_and_the_venues_in_them_begin_with_the_longest(
    venues: list[Venue], max_tasks: int
) -> None:
    packed = pack(venues, max_tasks=max_tasks)
    loads = [load(batch) for batch in packed]
    assert loads == sorted(loads, reverse=True)
    for batch in packed:
        took = [venue.expected_seconds or 0 for venue in batch.venues]
        assert took == sorted(took, reverse=True)


def test_a_venue_that_was_never_done_counts_as_a_twentieth_of_a_group() -> None:
    packed = pack([timed_venue(n, None) for n in range(21)], max_tasks=2)
    assert [len(batch.venues) for batch in packed] == [20, 1]


def test_the_tenant_whose_venues_take_longest_has_the_more_tasks() -> None:
    long = [timed_venue(n, 60.0, tenant=1) for n in range(4)]
    short = [timed_venue(n, 2.0, tenant=2) for n in range(4, 8)]
    packed = pack([*short, *long], max_tasks=5)
    assert [len(batch.venues) for batch in packed] == [1, 1, 1, 1, 4]


def test_venues_that_take_no_time_are_spread_all_the_same() -> None:
    packed = pack([timed_venue(n, 0.0) for n in range(200)], max_tasks=4)
    assert [len(batch.venues) for batch in packed] == [50, 50, 50, 50]
