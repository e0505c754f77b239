"""The facts about RFM scoring for the tests of every job."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from tests.jobs.facts import AS_OF, TENANT, VENUE, DryRun, JobFacts, Row

YESTERDAY = AS_OF - timedelta(days=1)


def rows(tenant: UUID, venue: UUID, customer: UUID) -> Mapping[str, Row]:
    """Return a row of each table; rows of two tenants at one venue have different keys."""
    is_own = tenant == TENANT
    key = {"venue_id": venue, "tenant_id": tenant}
    return {
        "venue_rfm_state": {**key, "as_of": YESTERDAY, "currency": "USD", "main_currency": "USD"},
        "venue_rfm_rules": {
            **key,
            "since": YESTERDAY if is_own else YESTERDAY - timedelta(hours=1),
            "rules_hash": "hash",
            "rules": Jsonb({}),
        },
        "customer_rfm_state": {
            **key,
            "customer_id": customer,
            "first_purchase_at": YESTERDAY,
            "last_purchase_at": YESTERDAY,
            "created_at": YESTERDAY,
            "spent_cents": 1,
            "purchases": 1,
            "recency_score": 1,
            "frequency_score": 1,
            "monetary_score": 1,
            "segment": 1,
            "churn_risk": 1,
            "known": True,
        },
        "customer_segments": {
            **key,
            "segment_name": "VIP" if is_own else "the other's",
            "customer_count": 1,
            "total_revenue": 1,
            "avg_order_value": 1,
            "avg_lifetime_value": 1,
            "avg_purchase_frequency": 1,
            "last_calculated_at": YESTERDAY,
        },
        "customer_segment_change": {
            **key,
            "customer_id": customer,
            "as_of": AS_OF,
            "previous_segment": 4,
            "segment": 1,
            "spent_cents": 1,
            "by_rules": False,
        },
    }


FACTS = JobFacts(
    tables=(
        "customer_rfm_state",
        "venue_rfm_state",
        "customer_segments",
        "customer_segment_change",
        "venue_rfm_rules",
    ),
    views=(
        "customer_rfm_scores",
        "customer_venue_value",
        "customer_lifetime_value",
        "customer_segment_history",
        "segment_movements",
        "tenant_currency",
    ),
    rows=rows,
    of_unit=("venue_rfm_state",),
    sql_values={
        "codes": [1, 2, 3, 4],
        "currencies": ["USD"],
        "customers": 10,
        "frequency": [2, 4, 7, 10],
        "high_risk_min_purchases": 3,
        "low_risk": AS_OF,
        "medium_risk_min_purchases": 2,
        "monetary": [80, 60, 40, 20],
        "not_high_risk": AS_OF,
        "not_long_gone": AS_OF,
        "recency": [AS_OF] * 4,
        "rules": Jsonb({}),
        "segments": [1 + number % 4 for number in range(250)],
        "since": None,
        "venue_id": VENUE,
        "venue_ids": [VENUE],
    },
    only_writes_its_tenant=("claim_venues",),
    messages=(
        "INSERT INTO public.venue_rfm_state",
        "public.customer_rfm_state",
        "INSERT INTO public.customer_segments",
        "UPDATE public.venue_rfm_state AS s SET (as_of",
    ),
    first_night={
        "customer_rfm_state": 12,
        "venue_rfm_state": 4,
        "customer_segments": 16,
        "venue_rfm_rules": 4,
    },
    settings={
        "lookback_days": st.none() | st.integers(1, 36_500),
        "currency": st.sampled_from([None, "EUR", "JPY"]),
        "vip_min_total": st.integers(9, 15),
    },
    wrong_settings=(
        (
            {"recency_days": [180, 90, 60, 30]},
            "recency_days = [180, 90, 60, 30]: must be four rising whole numbers",
        ),
        ({"vip_min_total": 8}, "vip_min_total > regular_min_total"),
    ),
    # all purchases are old, so each of three customers at four venues is Lost or Hibernating
    dry_run=DryRun(
        {"rule_set": "standard"},
        (r"Lost  .*  \d+  [\d.]+ USD", " would move between segments."),
    ),
)
