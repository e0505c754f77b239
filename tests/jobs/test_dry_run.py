"""A dry run says what other rules would do, and does nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from rich.console import Console
from tests.jobs.scoring import (
    AS_OF,
    OTHER_VENUE,
    TENANT,
    VENUE,
    House,
    Sale,
    Scoring,
    SimpleHouse,
    make_settings,
)

from venue_analytics.database.connection import connect
from venue_analytics.harness import dead_letters, history
from venue_analytics.harness.history import Attempt, PlannedRun, RunKey
from venue_analytics.harness.leases import RENEWAL, Holder, LeaseKeeper
from venue_analytics.harness.plan import COMMAND_LINE, plan_run
from venue_analytics.harness.request import RunRequest
from venue_analytics.jobs.rfm_scoring import RFM_SCORING
from venue_analytics.preview import Movement, movements
from venue_analytics.report import print_run

DAY = timedelta(days=1)
TWO_VENUES = ((VENUE, TENANT), (OTHER_VENUE, TENANT))


def bought(user: str, times: int, venue: UUID = VENUE, amount: int = 10) -> list[Sale]:
    return [Sale(user, AS_OF - number * DAY, amount, venue=venue) for number in range(1, times + 1)]


def preview(house: House, settings: Mapping[str, Any], venues: list[UUID] | None = None) -> Scoring:
    """Run dry with these settings, as `run --dry-run --settings` does."""
    chosen = make_settings(settings=settings)
    request = RunRequest(dry_run=True, venues=venues)
    return house.work(house.plan(datetime.now(UTC), chosen, request=request), chosen)


def moved(attempts: Mapping[UUID, Attempt]) -> set[tuple[str, str, int]]:
    return {(one.before, one.after, one.customers) for one in movements(attempts.values())}


def written_by_rules(house: House) -> set[tuple[str, str, int]]:
    rows = house.superuser.execute(
        "SELECT coalesce(previous_segment, '(none)'), coalesce(segment, '(none)'), count(*) "
        "FROM customer_segment_history WHERE kind = 'rules' GROUP BY 1, 2"
    ).fetchall()
    return set(rows)


@pytest.fixture
def scored(simple_house: SimpleHouse) -> SimpleHouse:
    """Two venues, scored by the audited rules."""
    sales = [
        *bought("anna", 12),
        *bought("ben", 1),
        *bought("cleo", 3, amount=1),
        *bought("anna", 1, OTHER_VENUE),
        *bought("dan", 8, OTHER_VENUE),
    ]
    simple_house.fill(sales, venues=TWO_VENUES)
    assert simple_house.run().unfinished == []
    return simple_house


@pytest.mark.parametrize(
    "settings",
    [
        {"rule_set": "standard"},
        {"vip_min_total": 15},
        {"frequency_purchases": [4, 3, 2, 1]},
        {"lookback_days": 5, "recency_days": [1, 2, 3, 4]},
        {"currency": "EUR"},
        {"venues": {OTHER_VENUE: {"rule_set": "standard"}}},
    ],
    ids=lambda settings: ", ".join(settings),
)
def test_it_says_exactly_what_the_same_settings_then_do(
    scored: SimpleHouse, settings: dict[str, Any]
) -> None:
    told = moved(preview(scored, settings).attempts)
    assert told
    # the next night, before anybody has aged by a day
    assert scored.run(AS_OF + timedelta(seconds=1), settings=settings).unfinished == []
    assert written_by_rules(scored) == told


def test_it_writes_nothing(scored: SimpleHouse) -> None:
    scored.run(AS_OF + DAY, settings={"vip_min_total": 15})
    assert written_by_rules(scored)
    before = scored.row_versions(), tokens(scored)
    assert moved(preview(scored, {"rule_set": "standard"}).attempts)
    assert (scored.row_versions(), tokens(scored)) == before


def tokens(house: House) -> list[tuple[Any, ...]]:
    return house.superuser.execute("SELECT * FROM jobs.fence ORDER BY venue_id").fetchall()


def test_it_keeps_nobody_from_a_venue_and_waits_for_nobody(scored: SimpleHouse) -> None:
    nights: list[Scoring] = []

    class Cursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            if "what scoring it read" in str(query) and not nights:
                nights.append(scored.run(AS_OF + DAY))
            return super().execute(query, *args, **options)

    def opener() -> psycopg.Connection:
        connection = connect(scored.database.address())
        connection.cursor_factory = Cursor
        return connection

    chosen = make_settings(settings={"rule_set": "standard"})
    dry = scored.plan(datetime.now(UTC), chosen, request=RunRequest(dry_run=True))
    assert scored.work(dry, chosen, opener=opener).unfinished == []
    (night,) = nights
    assert {attempt.outcome for attempt in night.attempts.values()} == {"succeeded"}
    somebody = Holder(uuid4(), "somebody", 0, 1, AS_OF, "", uuid4())
    with LeaseKeeper(scored.leases, every=RENEWAL) as keeper:
        assert keeper.take({VENUE: somebody}) == {}
        assert preview(scored, {"rule_set": "standard"}).unfinished == []


def test_it_ends_no_run_that_was_left_open(scored: SimpleHouse) -> None:
    left = plan_as_a_command_line_does(scored)
    chosen = make_settings()
    dry = scored.plan(datetime.now(UTC), chosen, request=RunRequest(dry_run=True))
    assert dry.left_behind == []
    (told,) = scored.plan(AS_OF + 2 * DAY, chosen).left_behind
    assert told.startswith(f"run {left.run_id} as of ")


def test_one_that_was_left_open_is_ended_without_a_word(scored: SimpleHouse) -> None:
    left = plan_as_a_command_line_does(scored, RunRequest(dry_run=True))
    assert scored.plan(AS_OF + 2 * DAY, make_settings()).left_behind == []
    with scored.database.jobs() as connection:
        assert dead_letters.find(connection) == []
        open_ones = history.unfinished_runs(connection, left.key)
    assert left.id not in {run.id for run in open_ones}


def plan_as_a_command_line_does(house: House, request: RunRequest | None = None) -> PlannedRun:
    """Plan a run whose process then dies."""
    own = uuid4()
    with connect(house.database.address()) as connection:
        return plan_run(
            connection,
            house.leases,
            RFM_SCORING,
            RunKey(own, RFM_SCORING.name, f"{COMMAND_LINE}{own}"),
            make_settings(),
            request or RunRequest(),
            as_of=AS_OF + DAY,
        )


def test_whoever_would_leave_is_counted_with_what_stands_in_its_currency(
    scored: SimpleHouse,
) -> None:
    told = printed(scored, preview(scored, {"currency": "EUR"}))
    # all that was bought, in dollars; nobody has bought anything in euros
    assert {one.split()[-1] for one in told if "(none)" in one} == {"USD"}
    assert told[-1].startswith("5 of 5 customers at 2 venues would move between segments.")


def printed(house: House, scoring: Scoring) -> list[str]:
    text = io.StringIO()
    with house.database.jobs() as connection:
        print_run(Console(file=text, width=120), connection, scoring.run)
    return text.getvalue().splitlines()


def test_the_settings_in_force_move_nobody_though_customers_have_aged(scored: SimpleHouse) -> None:
    assert moved(preview(scored, {}).attempts) == set()


def test_a_venue_that_was_never_scored_comes_from_no_segment(simple_house: SimpleHouse) -> None:
    simple_house.fill(bought("anna", 2))
    assert moved(preview(simple_house, {}).attempts) == {("(none)", "Lost", 1)}


def test_money_is_added_up_by_currency_and_the_largest_movement_is_told_first(
    scored: SimpleHouse,
) -> None:
    attempts = preview(scored, {"rule_set": "standard"}).attempts
    told = movements(attempts.values())
    assert [one.customers for one in told] == sorted((one.customers for one in told), reverse=True)
    # 12 × 10 of Anna, 1 × 10 of Ben, 3 × 1 of Cleo; 1 × 10 of Anna, 8 × 10 of Dan
    assert sum(one.spent for one in told) == 223
    other = {venue: replace(a, summary=_in_euros(a)) for venue, a in attempts.items()}
    both = movements([*attempts.values(), *other.values()])
    assert {one.currency for one in both} == {"USD", "EUR"}
    assert len(both) == 2 * len(told)


def _in_euros(attempt: Attempt) -> dict[str, Any]:
    assert attempt.summary is not None
    return attempt.summary | {"currency": "EUR"}


def test_a_movement_is_told_in_one_line() -> None:
    movement = Movement("VIP", "Champions", "EUR", 1_204, Decimal(98_000))
    assert str(movement) == "VIP → Champions: 1,204 customers who spent 98,000.00 EUR"


def test_it_is_no_proof_that_a_night_is_done(scored: SimpleHouse) -> None:
    preview(scored, {"rule_set": "standard"})
    scoring = scored.run(settings={"rule_set": "standard"})
    assert {attempt.outcome for attempt in scoring.attempts.values()} == {"succeeded"}


def test_its_failure_is_told_and_leaves_no_letter(scored: SimpleHouse) -> None:
    scored.superuser.execute(
        "CREATE OR REPLACE VIEW source.freshness WITH (security_invoker) AS "
        "SELECT v.tenant_id, timestamptz '2020-01-01' AS loaded_through FROM venues AS v"
    )
    try:
        scoring = preview(scored, {"rule_set": "standard"})
        assert len(scoring.unfinished) == 2
        assert "is loaded through 2020-01-01" in scoring.unfinished[0]
        assert "0 of 0 customers at 0 venues would move" in "".join(printed(scored, scoring))
        with scored.database.jobs() as connection:
            assert dead_letters.find(connection, ended=True) == []
    finally:
        scored.superuser.execute(
            "CREATE OR REPLACE VIEW source.freshness WITH (security_invoker) AS "
            "SELECT DISTINCT v.tenant_id::uuid AS tenant_id, now() AS loaded_through "
            "FROM public.venues AS v WHERE v.tenant_id IS NOT NULL"
        )


def test_it_answers_no_letter(scored: SimpleHouse) -> None:
    failing = scored.plan(AS_OF + DAY, make_settings())
    with scored.database.jobs() as connection:
        (batch,) = history.load_batches(connection, failing)
        venue = batch.venues[0]
        undone = [(failing, venue, None, "it was never begun")]
        dead_letters.write_venues(connection, RFM_SCORING, undone)
        preview(scored, {"rule_set": "standard"})
        assert [letter.venue_id for letter in dead_letters.find(connection)] == [venue.venue_id]


def test_it_may_look_at_some_venues_alone(scored: SimpleHouse) -> None:
    scoring = preview(scored, {"rule_set": "standard"}, venues=[OTHER_VENUE])
    assert set(scoring.attempts) == {OTHER_VENUE}
