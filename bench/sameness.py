"""Check that two ways computed the same results; otherwise their times cannot be compared."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg

#: Sums that do not depend on the order of rows. Sums of products with a hash of the ids detect
#: scores that are assigned to other customers.
FIGURES = {
    "customer_rfm_scores": (
        "count(*)",
        "sum(recency_score)",
        "sum(frequency_score)",
        "sum(monetary_score)",
        "sum(total_score)",
        "sum(days_since_last_purchase)",
        "sum(total_purchases)",
        "sum(total_spent)",
        "sum(average_order_value)",
        "count(*) FILTER (WHERE segment = 'VIP')",
        "count(*) FILTER (WHERE segment = 'Regular')",
        "count(*) FILTER (WHERE segment = 'At-Risk')",
        "count(*) FILTER (WHERE churn_risk = 'high')",
        "count(*) FILTER (WHERE churn_risk = 'medium')",
        "sum(abs(hashtext(customer_id::text || venue_id) % 1000) * total_score)",
        "sum(abs(hashtext(customer_id::text || venue_id) % 1000) * total_spent)",
    ),
    "customer_segments": (
        "count(*)",
        "sum(customer_count)",
        "sum(total_revenue)",
        "sum(avg_order_value)",
        "sum(avg_lifetime_value)",
        "sum(avg_purchase_frequency)",
    ),
    "customer_lifetime_value": (
        "count(*)",
        "sum(clv)",
        "sum(avg_order_value)",
        "sum(purchase_frequency)",
        "sum(customer_lifespan_days)",
        "sum(total_purchases)",
        "sum(total_revenue)",
        "sum(predicted_clv_12_months)",
        "sum(predicted_clv_24_months)",
        "sum(churn_probability)",
        "sum(abs(hashtext(customer_id::text) % 1000) * clv)",
    ),
}
#: The relative tolerance for pandas, which computes averages in floats and rounds half to even.
AS_FLOATS_DO = Decimal("1e-5")

Figures = dict[str, Decimal]


class DifferentResultsError(Exception):
    """Two ways of scoring computed different scores."""


def figures(uri: str, schema: str = "public") -> Figures:
    """Return FIGURES of the API's tables, or of the views with their names."""
    found: Figures = {}
    with psycopg.connect(uri) as connection:
        for table, expressions in FIGURES.items():
            query = f"SELECT {', '.join(expressions)} FROM {schema}.{table}"  # noqa: S608
            row: Any = connection.execute(query).fetchone()
            for name, value in zip(expressions, row, strict=True):
                found[f"{table}: {name}"] = Decimal(value or 0)
    return found


def refuse_difference(
    what: str, found: Figures, expected: Figures, tolerance: Decimal = Decimal(0)
) -> None:
    """Check that figures differ by at most a relative tolerance.

    Raises:
        DifferentResultsError: they differ by more; the message lists the differences.
    """
    different = [
        f"{name}: {value}, expected {expected[name]}"
        for name, value in found.items()
        if abs(value - expected[name]) > tolerance * abs(expected[name])
    ]
    if different:
        raise DifferentResultsError(f"{what} has other results:\n" + "\n".join(different))


def refuse_other_rows(uri: str, what: str, expected: str) -> None:
    """Check that another schema has all rows of a schema's scores.

    Raises:
        DifferentResultsError: rows are missing; the message has their number.
    """
    with psycopg.connect(uri) as connection:
        (others,) = connection.execute(
            f"SELECT count(*) FROM (SELECT * FROM {what}.customer_rfm_scores "  # noqa: S608
            f"EXCEPT SELECT * FROM {expected}.customer_rfm_scores) AS d"
        ).fetchone() or (0,)
    if others:
        raise DifferentResultsError(f"{others} rows of {what} are not in {expected}")


def state_fingerprint(uri: str) -> Figures:
    """Return the number of rows of the state, and a hash over all columns except created_at."""
    with psycopg.connect(uri) as connection:
        row = connection.execute(
            "SELECT count(*), sum(hashtextextended((to_jsonb(s) - 'created_at')::text, 0)) "
            "FROM public.customer_rfm_state AS s"
        ).fetchone() or (0, 0)
    return {"rows": Decimal(row[0]), "rows' hashes": Decimal(row[1] or 0)}
