"""Batches: every venue exactly once, never too many tasks, tenants apart where that fits."""

from __future__ import annotations

from random import Random
from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from venue_analytics.harness import Venue
from venue_analytics.harness.batches import pack

venues = st.lists(
    st.builds(
        Venue,
        venue_id=st.uuids(),
        tenant_id=st.integers(1, 4).map(lambda number: UUID(int=number)),
        name=st.sampled_from(["Arena", "Ballroom", "Cellar", "Dome"]),
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
def test_venues_have_tasks_of_their_own_while_there_are_few(
    venues: list[Venue], max_tasks: int
) -> None:
    packed = pack(venues, max_tasks=max_tasks)
    if len(venues) <= max_tasks:
        assert [len(batch.venues) for batch in packed] == [1] * len(venues)


@given(venues=venues, max_tasks=st.integers(1, 40), shuffle=st.randoms())
def test_the_order_of_the_source_does_not_matter(
    venues: list[Venue], max_tasks: int, shuffle: Random
) -> None:
    other = list(venues)
    shuffle.shuffle(other)
    assert pack(other, max_tasks=max_tasks) == pack(venues, max_tasks=max_tasks)


@given(venues=venues)
def test_tasks_of_one_venue_have_labels_of_their_own(venues: list[Venue]) -> None:
    labels = [batch.label for batch in pack(venues, max_tasks=60)]
    assert len(set(labels)) == len(labels)


def test_batches_are_numbered_from_0() -> None:
    packed = pack([venue(n, "Arena") for n in range(1, 8)], max_tasks=3)
    assert [batch.number for batch in packed] == [0, 1, 2]


def test_a_task_of_one_venue_bears_its_name() -> None:
    assert [batch.label for batch in pack([venue(1, "Arena")], max_tasks=5)] == ["Arena"]


def test_a_task_of_several_venues_says_how_many_and_which_is_first() -> None:
    packed = pack([venue(n, f"Hall {n}") for n in (3, 1, 2)], max_tasks=1)
    assert [batch.label for batch in packed] == ["3 venues: Hall 1 …"]


def test_venues_of_one_name_are_told_apart_by_their_ids() -> None:
    packed = pack([venue(1, "Arena"), venue(2, "Arena", tenant=2), venue(3, "Dome")], max_tasks=5)
    assert [batch.label for batch in packed] == [
        "Arena (00000001)",
        "Dome",
        "Arena (00000002)",
    ]


def test_1500_venues_of_three_tenants_fit_the_default_number_of_tasks_evenly() -> None:
    packed = pack([venue(n, f"Hall {n}", tenant=n % 3) for n in range(1_500)], max_tasks=200)
    # 500 venues a tenant; 7 a task would need 3 × 72 = 216 tasks, 8 need 3 × 63 = 189.
    assert len(packed) == 189
    assert max(len(batch.venues) for batch in packed) == 8
