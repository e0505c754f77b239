"""The two rule sets: from scores and days to segment and churn risk.

Both come to the same: a table that gives the segment of each triple of scores, and bounds of days
and purchases for churn risk. `score.sql` looks up and compares; it knows no rule set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

#: As in the SQL function rfm_segment_name().
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


@dataclass(frozen=True)
class Rules:
    """A rule set with its thresholds.

    Attributes:
        segments: the names of its segments, in the order in which people are shown them.
        segment: names the segment of recency, frequency and monetary score, and of whether the
            last purchase is longer ago than `long_gone_after_days`.
        long_gone_after_days: days.
        high_risk: churn risk is high after so many days since the last purchase, for customers of
            so many purchases.
        medium_risk: the same of medium risk; else it is low.
    """

    segments: tuple[str, ...]
    segment: Callable[[int, int, int, bool], str]
    long_gone_after_days: int
    high_risk: tuple[int, int]
    medium_risk: tuple[int, int]

    @property
    def codes(self) -> list[int]:
        """The codes of its segments."""
        return [SEGMENT_CODES[name] for name in self.segments]


def bound_names(settings: RfmScoringSettings, as_of: datetime) -> dict[str, Any]:
    """Return thresholds and rules under the names that score.sql binds; bounds are rising.

    Days become the first moment since which so many whole days, or fewer, have passed.
    """
    rules = rules_of(settings)

    def within(days: int) -> str:
        try:
            return (as_of - timedelta(days=days + 1) + MICROSECOND).isoformat()
        except OverflowError:
            return "-infinity"

    lookback = settings.lookback_days
    return {
        "since": as_of - timedelta(days=lookback) if lookback else None,
        "recency": [within(days) for days in reversed(settings.recency_days)],
        "frequency": settings.frequency_purchases[::-1],
        "monetary": settings.monetary_percent,
        "segments": [
            SEGMENT_CODES[rules.segment(r, f, m, is_long_gone)]
            for is_long_gone, r, f, m in product((False, True), SCORES, SCORES, SCORES)
        ],
        "not_long_gone": within(rules.long_gone_after_days),
        "not_high_risk": within(rules.high_risk[0]),
        "high_risk_min_purchases": rules.high_risk[1],
        "low_risk": within(rules.medium_risk[0]),
        "medium_risk_min_purchases": rules.medium_risk[1],
    }


def rules_of(settings: RfmScoringSettings) -> Rules:
    """Give the rules that settings ask for."""
    if settings.rule_set == "standard":
        return _standard(settings)
    return _audited(settings)


def _audited(settings: RfmScoringSettings) -> Rules:
    def segment(recency: int, frequency: int, monetary: int, is_long_gone: bool) -> str:
        total = recency + frequency + monetary
        if total >= settings.vip_min_total:
            return "VIP"
        if total >= settings.regular_min_total:
            return "Regular"
        if total >= settings.at_risk_min_total and not is_long_gone:
            return "At-Risk"
        return "Lost"

    return Rules(
        segments=("VIP", "Regular", "At-Risk", "Lost"),
        segment=segment,
        long_gone_after_days=settings.at_risk_max_days,
        high_risk=(settings.high_risk_after_days, settings.high_risk_min_purchases),
        medium_risk=(settings.medium_risk_after_days, settings.medium_risk_min_purchases),
    )


def _standard(settings: RfmScoringSettings) -> Rules:
    # Churn risk: high for R <= 2 and F >= 3, medium for R <= 3; in days and purchases, which is the
    # same, since R > 2 means so many days at the most, and F >= 3 so many purchases at the least.
    return Rules(
        segments=(
            "Champions",
            "Loyal",
            "Can't Lose",
            "At Risk",
            "New",
            "Promising",
            "Potential Loyalist",
            "Need Attention",
            "About to Sleep",
            "Hibernating",
            "Lost",
        ),
        segment=_standard_segment,
        long_gone_after_days=0,
        high_risk=(settings.recency_days[2], settings.frequency_purchases[2]),
        medium_risk=(settings.recency_days[1], 1),
    )


def _standard_segment(r: int, f: int, m: int, _is_long_gone: bool) -> str:
    rules = (
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
    return next((name for name, holds in rules if holds), "Lost")
