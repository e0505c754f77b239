"""Settings of RFM scoring; the defaults are the audited service's rules."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from venue_analytics.database.currencies import CODES
from venue_analytics.harness import SHAPES_RESULTS, JobSettings

#: The highest bound, and the most purchases that a setting can ask for.
HIGHEST = 1_000_000

#: Four bounds: for scores 5, 4, 3 and 2; what meets none scores 1.
Bounds = Annotated[list[Annotated[int, Field(le=HIGHEST)]], Field(min_length=4, max_length=4)]

RISING = f"four rising whole numbers between 0 and {HIGHEST}"
FALLING = f"four falling whole numbers between {HIGHEST} and 1"
PERCENTAGES = "four falling whole numbers between 100 and 1"
A_CURRENCY = "an ISO 4217 code such as EUR, or null"


def _rising(bounds: list[int]) -> list[int]:
    if bounds[0] < 0 or any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"must be {RISING}")
    return bounds


def _falling(bounds: list[int]) -> list[int]:
    if bounds[-1] < 1 or any(high <= low for high, low in pairwise(bounds)):
        raise ValueError(f"must be {FALLING}")
    return bounds


def _falling_percent(bounds: list[int]) -> list[int]:
    if bounds[0] > 100 or bounds[-1] < 1 or any(high <= low for high, low in pairwise(bounds)):
        raise ValueError(f"must be {PERCENTAGES}")
    return bounds


def _known_currency(code: str) -> str:
    if code not in CODES:
        raise ValueError(f"must be {A_CURRENCY}")
    return code


class RfmScoringSettings(JobSettings):
    """Thresholds and rules of RFM scoring."""

    rule_set: Literal["audited", "standard"] = Field(
        "audited",
        description="Which rules name segments and churn risk: the audited service's, by the total "
        "of the scores, or the standard ones, by recency first.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "-"},
    )
    recency_days: Annotated[Bounds, AfterValidator(_rising)] = Field(
        [30, 60, 90, 180],
        description="Days since the last purchase, at the most, for scores 5, 4, 3 and 2.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "days", "allowed": RISING},
    )
    frequency_purchases: Annotated[Bounds, AfterValidator(_falling)] = Field(
        [10, 7, 4, 2],
        description="Purchases, at the least, for scores 5, 4, 3 and 2.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "purchases", "allowed": FALLING},
    )
    monetary_percent: Annotated[Bounds, AfterValidator(_falling_percent)] = Field(
        [80, 60, 40, 20],
        description="Percent of the venue's customers who spent strictly less, at the least, "
        "for scores 5, 4, 3 and 2.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "percent", "allowed": PERCENTAGES},
    )
    lookback_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="Days before as_of that purchases count from; null means all history.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "days"},
    )
    vip_min_total: int = Field(
        12,
        ge=3,
        le=15,
        description="Total score from which a customer is VIP; above regular_min_total.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "points"},
    )
    regular_min_total: int = Field(
        8,
        ge=3,
        le=15,
        description="Total score from which a customer is Regular; above at_risk_min_total.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "points"},
    )
    at_risk_min_total: int = Field(
        5,
        ge=3,
        le=15,
        description="Total score from which a customer is At-Risk, not Lost.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "points"},
    )
    at_risk_max_days: int = Field(
        180,
        ge=0,
        le=36_500,
        description="Days since the last purchase up to which a customer is At-Risk, not Lost.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "days"},
    )
    high_risk_after_days: int = Field(
        180,
        ge=0,
        le=36_500,
        description="Days since the last purchase after which churn risk is high; at least "
        "medium_risk_after_days.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "days"},
    )
    high_risk_min_purchases: int = Field(
        3,
        ge=1,
        le=HIGHEST,
        description="Purchases from which churn risk can be high.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "purchases"},
    )
    medium_risk_after_days: int = Field(
        90,
        ge=0,
        le=36_500,
        description="Days since the last purchase after which churn risk is medium.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "days"},
    )
    medium_risk_min_purchases: int = Field(
        2,
        ge=1,
        le=HIGHEST,
        description="Purchases from which churn risk can be medium.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "purchases"},
    )
    currency: Annotated[str, AfterValidator(_known_currency)] | None = Field(
        None,
        description="ISO 4217 code of the orders that count; null means the venue's own, else "
        "that of most of its sales at its first build.",
        json_schema_extra=SHAPES_RESULTS | {"unit": "ISO 4217 code", "allowed": A_CURRENCY},
    )

    @model_validator(mode="after")
    def _segments_fall(self) -> Self:
        totals = (self.vip_min_total, self.regular_min_total, self.at_risk_min_total)
        if not totals[0] > totals[1] > totals[2]:
            raise ValueError(
                "vip_min_total > regular_min_total > at_risk_min_total must hold; they are "
                f"{totals[0]}, {totals[1]}, {totals[2]}"
            )
        if self.high_risk_after_days < self.medium_risk_after_days:
            raise ValueError(
                f"high_risk_after_days = {self.high_risk_after_days}: must be at least "
                f"medium_risk_after_days ({self.medium_risk_after_days})"
            )
        return self
