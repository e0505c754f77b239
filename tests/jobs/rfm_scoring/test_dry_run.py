"""A dry run reports what other rules would do, and changes nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from rich.console import Console
from tests.jobs.rfm_scoring.scoring import (
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
from venue_analytics.database.statements import statement
from venue_analytics.harness import UnitResult, dead_letters, history
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.leases import RENEWAL, Holder, LeaseKeeper
from venue_analytics.harness.plan import COMMAND_LINE, plan_run
from venue_analytics.harness.request import RunRequest
from venue_analytics.jobs.rfm_scoring import JOB as RFM_SCORING
from venue_analytics.jobs.rfm_scoring.report import report_preview
from venue_analytics.report import print_run

DAY = timedelta(days=1)
SCORE = statement("venue_analytics.jobs.rfm_scoring", "score")
TWO_VENUES = ((VENUE, TENANT), (OTHER_VENUE, TENANT))


@dataclass(frozen=True)
class Movement:
    """A row of the table of a dry run."""

    before: str
    after: str
    customers: int
    spent: Decimal
    currency: str


def bought(user: str, times: int, venue: UUID = VENUE, amount: int = 10) -> list[Sale]:
    return [Sale(user, AS_OF - number * DAY, amount, venue=venue) for number in range(1, times + 1)]


def preview(house: House, settings: Mapping[str, Any], venues: list[UUID] | None = None) -> Scoring:
    """Make a dry run with these settings, as `run --dry-run --settings` does."""
    chosen = make_settings(settings=settings)
    request = RunRequest(dry_run=True, units=venues)
    return house.work(house.plan(datetime.now(UTC), chosen, request=request))


def movements(results: Mapping[UUID, UnitResult]) -> list[Movement]:
    """Read the movements from the table that is shown, which lists the largest first."""
    tables = report_preview(results).tables
    return [
        Movement(before, after, int(customers.replace(",", "")), *_money(spent))
        for before, after, customers, spent in (row for table in tables for row in table.rows)
    ]


def _money(text: str) -> tuple[Decimal, str]:
    amount, _, currency = text.partition(" ")
    return Decimal(amount.replace(",", "")), currency


def results_of(scoring: Scoring) -> dict[UUID, UnitResult]:
    return {venue_id: attempt.result for venue_id, attempt in scoring.attempts.items()}


def moved(scoring: Scoring) -> set[tuple[str, str, int]]:
    return {(one.before, one.after, one.customers) for one in movements(results_of(scoring))}


def written_by_rules(house: House) -> set[tuple[str, str, int]]:
    rows = house.superuser.execute(
        "SELECT coalesce(previous_segment, '(none)'), coalesce(segment, '(none)'), count(*) "
        "FROM customer_segment_history WHERE kind = 'rules' GROUP BY 1, 2"
    ).fetchall()
    return set(rows)


@pytest.fixture
def scored(simple_house: SimpleHouse) -> SimpleHouse:
    """Return two venues, scored by the audited rules."""
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
def test_it_reports_exactly_what_the_same_settings_then_do(
    scored: SimpleHouse, settings: dict[str, Any]
) -> None:
    reported = moved(preview(scored, settings))
    assert reported
    # the next night, before any customer has aged by a day
    assert scored.run(AS_OF + timedelta(seconds=1), settings=settings).unfinished == []
    assert written_by_rules(scored) == reported


def test_it_writes_nothing(scored: SimpleHouse) -> None:
    scored.run(AS_OF + DAY, settings={"vip_min_total": 15})
    assert written_by_rules(scored)
    before = scored.row_versions(), tokens(scored)
    assert moved(preview(scored, {"rule_set": "standard"}))
    assert (scored.row_versions(), tokens(scored)) == before


def tokens(house: House) -> list[tuple[Any, ...]]:
    return house.superuser.execute("SELECT * FROM jobs.fence ORDER BY unit_id").fetchall()


def test_it_neither_blocks_a_night_nor_waits_for_a_lease(scored: SimpleHouse) -> None:
    nights: list[Scoring] = []

    class Cursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            if query == SCORE and not nights:
                nights.append(scored.run(AS_OF + DAY))
            return super().execute(query, *args, **options)

    def opener() -> psycopg.Connection:
        connection = connect(scored.database.address())
        connection.cursor_factory = Cursor
        return connection

    chosen = make_settings(settings={"rule_set": "standard"})
    dry = scored.plan(datetime.now(UTC), chosen, request=RunRequest(dry_run=True))
    assert scored.work(dry, opener=opener).unfinished == []
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
    (line,) = scored.plan(AS_OF + 2 * DAY, chosen).left_behind
    assert line.startswith(f"run {left.run_id} as of ")


def test_a_dry_run_that_was_left_open_is_ended_without_a_report(scored: SimpleHouse) -> None:
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


def test_customers_who_would_leave_are_counted_with_their_current_spend_and_currency(
    scored: SimpleHouse,
) -> None:
    lines = printed(scored, preview(scored, {"currency": "EUR"}))
    # everything was bought in dollars, nothing in euros
    assert {one.split()[-1] for one in lines if "(none)" in one} == {"USD"}
    assert lines[-2:] == [
        "5 of 5 customers at 2 venues would move between segments.",
        "Nothing was written.",
    ]


def printed(house: House, scoring: Scoring) -> list[str]:
    text = io.StringIO()
    with house.database.jobs() as connection:
        print_run(Console(file=text, width=120), connection, scoring.run)
    return text.getvalue().splitlines()


def test_the_current_settings_move_no_customer_even_after_days_have_passed(
    scored: SimpleHouse,
) -> None:
    assert moved(preview(scored, {})) == set()


def test_customers_of_a_venue_that_was_never_scored_come_from_no_segment(
    simple_house: SimpleHouse,
) -> None:
    simple_house.fill(bought("anna", 2))
    assert moved(preview(simple_house, {})) == {("(none)", "Lost", 1)}


def test_money_is_summed_by_currency_and_the_largest_movement_comes_first(
    scored: SimpleHouse,
) -> None:
    results = results_of(preview(scored, {"rule_set": "standard"}))
    found = movements(results)
    assert [one.customers for one in found] == sorted(
        (one.customers for one in found), reverse=True
    )
    # 12 × 10 of Anna, 1 × 10 of Ben, 3 × 1 of Cleo; 1 × 10 of Anna, 8 × 10 of Dan
    assert sum(one.spent for one in found) == 223
    other = {
        uuid4(): replace(result, summary={**result.summary, "currency": "EUR"})
        for result in results.values()
    }
    both = movements(results | other)
    assert {one.currency for one in both} == {"USD", "EUR"}
    assert len(both) == 2 * len(found)


def test_a_movement_is_one_row_with_thousands_separators() -> None:
    movement = {"from": "VIP", "to": "Champions", "customers": 1_204, "spent_cents": 9_800_000}
    summary = {
        "customers": 2_000,
        "movements": [movement | {"left": False}],
        "currency": "EUR",
        "currency_before": "USD",
        "as_of": AS_OF.isoformat(),
    }
    shown = report_preview({VENUE: UnitResult(summary=summary)})
    (table,) = shown.tables
    assert list(table.columns) == ["From", "To", "Customers", "Spent"]
    assert list(table.rows) == [("VIP", "Champions", "1,204", "98,000.00 EUR")]
    assert list(shown.lines) == [
        "Compared with what stands as of 2024-07-01 00:00:00 UTC.",
        "1,204 of 2,000 customers at 1 venue would move between segments.",
    ]


def test_it_does_not_count_as_a_done_night(scored: SimpleHouse) -> None:
    preview(scored, {"rule_set": "standard"})
    scoring = scored.run(settings={"rule_set": "standard"})
    assert {attempt.outcome for attempt in scoring.attempts.values()} == {"succeeded"}


def test_its_failure_is_reported_and_leaves_no_letter(scored: SimpleHouse) -> None:
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


def test_it_resolves_no_letter(scored: SimpleHouse) -> None:
    failing = scored.plan(AS_OF + DAY, make_settings())
    with scored.database.jobs() as connection:
        (batch,) = history.load_batches(connection, failing)
        venue = batch.units[0]
        undone = [(failing, venue, None, "it was never begun")]
        dead_letters.write_units(connection, RFM_SCORING, undone)
        preview(scored, {"rule_set": "standard"})
        assert [letter.unit_id for letter in dead_letters.find(connection)] == [venue.id]


def test_it_may_be_limited_to_some_venues(scored: SimpleHouse) -> None:
    scoring = preview(scored, {"rule_set": "standard"}, venues=[OTHER_VENUE])
    assert set(scoring.attempts) == {OTHER_VENUE}
