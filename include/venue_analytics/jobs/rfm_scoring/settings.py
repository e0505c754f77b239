"""Settings of RFM scoring; the defaults are the rules of the audited service."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from venue_analytics.database.currencies import CODES
from venue_analytics.harness import SHAPES_RESULTS, VenueSettings

#: The highest value of a bound or a number of purchases.
HIGHEST = 1_000_000
RISING = f"four rising whole numbers between 0 and {HIGHEST}"
FALLING = f"four falling whole numbers between {HIGHEST} and 1"
PERCENTAGES = "four falling whole numbers between 100 and 1"
A_CURRENCY = "an ISO 4217 code such as EUR, or null"


def _rule(unit: str, allowed: str | None = None, **bounds: Any) -> Any:
    """Return the field of a setting that shapes results; `allowed` describes its own validator."""
    extra = SHAPES_RESULTS | {"unit": unit}
    if allowed is not None:
        extra["allowed"] = allowed
    return Field(json_schema_extra=extra, **bounds)


def _check(allowed: str, lowest: int, highest: int, step: int) -> AfterValidator:
    """Return a validator of bounds that rise (step 1) or fall (step -1), lowest to highest."""

    def check(bounds: list[int]) -> list[int]:
        rising = bounds[::step]
        is_outside = rising[0] < lowest or rising[-1] > highest
        if is_outside or any(low >= high for low, high in pairwise(rising)):
            raise ValueError(f"must be {allowed}")
        return bounds

    return AfterValidator(check)


def _known_currency(code: str) -> str:
    if code not in CODES:
        raise ValueError(f"must be {A_CURRENCY}")
    return code


#: Bounds for scores 5, 4, 3 and 2; a value that meets none scores 1.
Bounds = Annotated[list[Annotated[int, Field(le=HIGHEST)]], Field(min_length=4, max_length=4)]
Points = Annotated[int, _rule("points", ge=3, le=15)]
Days = Annotated[int, _rule("days", ge=0, le=36_500)]
Purchases = Annotated[int, _rule("purchases", ge=1, le=HIGHEST)]
Currency = Annotated[str, AfterValidator(_known_currency)]


class RfmScoringSettings(VenueSettings):
    """Thresholds and rules of RFM scoring."""

    rule_set: Annotated[Literal["audited", "standard"], _rule("-")] = Field(
        "audited",
        description="The rules for segments and churn risk: those of the audited service, by the "
        "total score, or the standard ones, by recency first.",
    )
    recency_days: Annotated[Bounds, _rule("days", RISING), _check(RISING, 0, HIGHEST, 1)] = Field(
        [30, 60, 90, 180],
        description="Maximum days since the last purchase for scores 5, 4, 3 and 2.",
    )
    frequency_purchases: Annotated[
        Bounds, _rule("purchases", FALLING), _check(FALLING, 1, HIGHEST, -1)
    ] = Field([10, 7, 4, 2], description="Minimum purchases for scores 5, 4, 3 and 2.")
    monetary_percent: Annotated[
        Bounds, _rule("percent", PERCENTAGES), _check(PERCENTAGES, 1, 100, -1)
    ] = Field(
        [80, 60, 40, 20],
        description="Minimum percent of the venue's customers who spent strictly less, for scores "
        "5, 4, 3 and 2.",
    )
    lookback_days: Annotated[int | None, _rule("days", ge=1, le=36_500)] = Field(
        None, description="Days before as_of within which purchases count; null means all history."
    )
    vip_min_total: Points = Field(
        12, description="Minimum total score of a VIP; above regular_min_total."
    )
    regular_min_total: Points = Field(
        8, description="Minimum total score of a Regular; above at_risk_min_total."
    )
    at_risk_min_total: Points = Field(
        5, description="Minimum total score of an At-Risk customer; below it, Lost."
    )
    at_risk_max_days: Days = Field(
        180, description="Maximum days since the last purchase of an At-Risk customer; then Lost."
    )
    high_risk_after_days: Days = Field(
        180,
        description="Days since the last purchase after which churn risk is high; at least "
        "medium_risk_after_days.",
    )
    high_risk_min_purchases: Purchases = Field(
        3, description="Minimum purchases for high churn risk."
    )
    medium_risk_after_days: Days = Field(
        90, description="Days since the last purchase after which churn risk is medium."
    )
    medium_risk_min_purchases: Purchases = Field(
        2, description="Minimum purchases for medium churn risk."
    )
    currency: Annotated[Currency | None, _rule("ISO 4217 code", A_CURRENCY)] = Field(
        None,
        description="ISO 4217 code of the orders that count; null means the venue's own, or if it "
        "has none, that of most of its sales at its first build.",
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
