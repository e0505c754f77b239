"""Settings of a job: one JSON object, checked field by field before anything uses it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID
from zoneinfo import available_timezones

from croniter import CroniterBadCronError, CroniterBadDateError, croniter
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.config import JsonDict

from venue_analytics.harness.errors import SettingsError

#: Marks a field that may differ by venue and shapes its results: it enters the rules hash.
SHAPES_RESULTS: JsonDict = {"per_venue": True, "shapes_results": True}


CRON_FORM = "must be a cron expression of five fields such as 0 2 * * *"


def _known_timezone(name: str) -> str:
    if name not in available_timezones() - {"Factory", "localtime"}:
        raise ValueError("must be an IANA time zone such as UTC or Europe/Berlin")
    return name


def _valid_cron(expression: str) -> str:
    # croniter knows R, a random moment (another schedule at each parse), and H, a hashed one
    if len(expression.split()) != 5 or re.search(r"(?<![a-z])[rh](?![a-z])", expression.lower()):
        raise ValueError(CRON_FORM)
    try:
        moments = croniter(expression, datetime(2026, 1, 1, tzinfo=UTC))
        moments.get_next()
        moments.get_prev()
    except CroniterBadCronError:
        raise ValueError(CRON_FORM) from None
    except CroniterBadDateError:
        raise ValueError("must be a cron expression of a day that comes") from None
    return expression


class JobSettings(BaseModel):
    """What every job's settings have in common; the defaults are the audited service's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    enabled: bool = Field(True, description="Whether the schedule is on; manual runs always work.")
    cron: Annotated[str, AfterValidator(_valid_cron)] = Field(
        "0 2 * * *", description="When the job runs: minute, hour, day, month, weekday."
    )
    timezone: Annotated[str, AfterValidator(_known_timezone)] = Field(
        "UTC", description="The IANA time zone that cron is read in."
    )
    retries: int = Field(3, ge=0, le=20, description="Further tries of a task that failed.")
    retry_delay_seconds: int = Field(
        30, ge=1, le=3600, description="Seconds before the first retry; later ones wait longer."
    )
    timeout_minutes: int = Field(
        60, ge=1, le=1440, description="Minutes after which a task is stopped."
    )
    max_parallel_venues: int = Field(
        16, ge=1, le=1024, description="Mapped tasks of one run that may work at the same time."
    )
    max_tasks: int = Field(
        200,
        ge=1,
        le=1024,
        description="Mapped tasks of one run at the most; with more venues, several share a task.",
    )
    pool: str = Field(
        "default_pool",
        max_length=256,
        pattern=r"^\S(.*\S)?$",
        description="The Airflow pool of its tasks.",
    )
    include_venues: list[UUID] = Field(
        [], description="Venue ids to do, and no others; empty means all."
    )
    exclude_venues: list[UUID] = Field(
        [], description="Venue ids to leave out; their rows stay as they are."
    )
    venues: dict[UUID, dict[str, Any]] = Field(
        {}, description="Overrides by venue id, for fields that may differ by venue."
    )

    @model_validator(mode="after")
    def _overrides_fit(self) -> Self:
        for venue_id, overrides in self.venues.items():
            for name in overrides:
                field = type(self).model_fields.get(name)
                extra = field.json_schema_extra if field else None
                if not (isinstance(extra, dict) and extra.get("per_venue")):
                    allowed = ", ".join(self._fields_marked("per_venue")) or "none"
                    raise ValueError(
                        f"venues.{venue_id}.{name} may not differ by venue; allowed: {allowed}"
                    )
            try:
                self._overridden(overrides)
            except ValidationError as error:
                faults = _faults(error, type(self).model_fields)
                raise ValueError(f"venues.{venue_id}.{faults[0]}") from None
        return self

    def for_venue(self, venue_id: UUID) -> Self:
        """Give the settings as they hold for one venue."""
        overrides = self.venues.get(venue_id)
        return self._overridden(overrides) if overrides else self

    def rules_hash(self) -> str:
        """Hash the fields that shape a venue's results: 16 hex digits."""
        rules = self.model_dump(mode="json", include=set(self._fields_marked("shapes_results")))
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def _fields_marked(cls, mark: str) -> list[str]:
        return [
            name
            for name, field in cls.model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get(mark)
        ]

    def _overridden(self, overrides: dict[str, Any]) -> Self:
        own = self.model_dump(mode="json", exclude={"venues"})
        return type(self).model_validate_json(json.dumps(own | overrides))


S = TypeVar("S", bound=JobSettings)


def read_settings(model: type[S], text: str | None, *, name: str) -> S:
    """Read settings from the text of a Variable.

    Args:
        model: the job's settings.
        text: a JSON object; None or blank means all defaults.
        name: the Variable's name, for the message.

    Raises:
        SettingsError: one line a fault: the Variable, the field, its value, what is allowed.
    """
    if text is None or not text.strip():
        return model()
    try:
        values = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"Variable {name} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise SettingsError(
            f"Variable {name} must be a JSON object such as "
            f'{{"cron": "0 2 * * *"}}, and is {str(values)[:80]!r}'
        )
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        lines = [f"Variable {name}: {fault}" for fault in _faults(error, model.model_fields)]
        raise SettingsError("\n".join(lines)) from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key in values if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"it has {twice!r} twice")
    return values


def _faults(error: ValidationError, known: Iterable[str]) -> list[str]:
    """Say each fault of a model in one line: field = value: what is allowed."""
    lines = []
    for fault in error.errors(include_url=False):
        field = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = f"is not a setting of this job; there are: {', '.join(known)}"
        shown = f"{field} = {str(fault['input'])[:80]!r}: " if field else ""
        lines.append(f"{shown}{message}")
    return lines
