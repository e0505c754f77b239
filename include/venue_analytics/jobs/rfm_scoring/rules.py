"""Convert either rule set to the parameters of `score.sql`, which knows neither.

The segments are a table with one entry per triple of scores. Churn risk is a set of bounds of time
and purchases.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

#: The codes of the SQL function rfm_segment_name(), in the order of reports.
SEGMENT_CODES = {
    "VIP": 1,
    "Regular": 2,
    "At-Risk": 3,
    "Lost": 4,
    "Champions": 11,
    "Loyal": 12,
    "Can't Lose": 13,
    "At Risk": 14,
    "New": 15,
    "Promising": 16,
    "Potential Loyalist": 17,
    "Need Attention": 18,
    "About to Sleep": 19,
    "Hibernating": 20,
}
SCORES = (1, 2, 3, 4, 5)
MICROSECOND = timedelta(microseconds=1)


def bound_names(settings: RfmScoringSettings, as_of: datetime) -> dict[str, Any]:
    """Return thresholds and rules under the names that score.sql binds; bounds are ascending.

    A number of days becomes the earliest moment that is at most so many whole days before as_of.
    """

    def within(days: int) -> str:
        try:
            return (as_of - timedelta(days=days + 1) + MICROSECOND).isoformat()
        except OverflowError:
            return "-infinity"

    high_risk, medium_risk = churn_risks(settings)
    lookback = settings.lookback_days
    return {
        "since": as_of - timedelta(days=lookback) if lookback else None,
        "recency": [within(days) for days in reversed(settings.recency_days)],
        "frequency": settings.frequency_purchases[::-1],
        "monetary": settings.monetary_percent,
        "codes": [SEGMENT_CODES[name] for name in segments(settings)],
        "segments": [
            SEGMENT_CODES[segment(settings, r, f, m, is_long_gone)]
            for is_long_gone, r, f, m in product((False, True), SCORES, SCORES, SCORES)
        ],
        "not_long_gone": within(settings.at_risk_max_days),
        "not_high_risk": within(high_risk[0]),
        "high_risk_min_purchases": high_risk[1],
        "low_risk": within(medium_risk[0]),
        "medium_risk_min_purchases": medium_risk[1],
    }


def segments(settings: RfmScoringSettings) -> list[str]:
    """Return the names of the rule set's segments."""
    is_standard = settings.rule_set == "standard"
    return [
        name for name, code in SEGMENT_CODES.items() if name == "Lost" or (code > 10) is is_standard
    ]


def churn_risks(settings: RfmScoringSettings) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the bounds of high and of medium churn risk: (after days, minimum purchases) each.

    By the standard rules it is high for R <= 2 and F >= 3, and medium for R <= 3. R <= 2 means more
    than recency_days[2] days, and F >= 3 at least frequency_purchases[2] purchases.
    """
    if settings.rule_set == "standard":
        days, purchases = settings.recency_days, settings.frequency_purchases
        return (days[2], purchases[2]), (days[1], 1)
    return (
        (settings.high_risk_after_days, settings.high_risk_min_purchases),
        (settings.medium_risk_after_days, settings.medium_risk_min_purchases),
    )


def segment(settings: RfmScoringSettings, r: int, f: int, m: int, is_long_gone: bool) -> str:
    """Return the segment for recency, frequency and monetary score: the first whose rule holds.

    A customer is long gone if the last purchase was more than `at_risk_max_days` ago. The standard
    rules ignore that.
    """
    total = r + f + m
    audited = (
        ("VIP", total >= settings.vip_min_total),
        ("Regular", total >= settings.regular_min_total),
        ("At-Risk", total >= settings.at_risk_min_total and not is_long_gone),
    )
    standard = (
        ("Champions", r >= 4 and f >= 4 and m >= 4),
        ("Loyal", r >= 3 and f >= 3 and f + m >= 6),
        ("Can't Lose", r == 1 and f >= 4 and m >= 4),
        ("At Risk", r <= 2 and f >= 2 and f + m >= 6),
        ("New", r == 5 and f == 1),
        ("Promising", r == 4 and f == 1),
        ("Potential Loyalist", r >= 4),
        ("Need Attention", r == 3 and f + m >= 5),
        ("About to Sleep", r == 3),
        ("Hibernating", r == 2),
    )
    rules = standard if settings.rule_set == "standard" else audited
    return next((name for name, holds in rules if holds), "Lost")
