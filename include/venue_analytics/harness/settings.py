"""Settings of a job: one JSON object, checked field by field before anything uses it."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar
from uuid import UUID
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import from_json

from venue_analytics.database.printable import printable
from venue_analytics.harness.errors import SettingsError
from venue_analytics.harness.unit import UnitKind

#: Marks a field that shapes results and may differ by unit. It enters the rules hash.
#: Besides, every field states its "unit", and what is "allowed" where its type and bounds do not.
SHAPES_RESULTS: JsonDict = {"per_unit": True, "shapes_results": True}

#: Faults that are listed of one text; a machine-made one can have thousands.
MOST_FAULTS = 20
#: Characters of a value, or of a name, that a message shows.
SHOWN_CHARACTERS = 80

A_CRON = "a cron expression of five fields such as 0 2 * * *"
A_TIMEZONE = "an IANA time zone such as UTC or Europe/Berlin"
TO_DO = "to do, and no others; empty means all."
TO_LEAVE_OUT = "to leave out; their rows stay as they are."
A_POOL = "a pool's name, without space at either end"

# PostgreSQL stores no NUL, and no setting needs the others.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@cache
def _timezones() -> frozenset[str]:
    # Kept: each call walks the folders of zoneinfo, and each venue with overrides asks again.
    return frozenset(available_timezones() - {"Factory", "localtime"})


def _known_timezone(name: str) -> str:
    if name not in _timezones():
        raise ValueError(f"must be {A_TIMEZONE}")
    return name


@lru_cache(maxsize=64)
def _valid_cron(expression: str) -> str:
    # here: the defaults, which most processes read, need no check
    from croniter import CroniterBadCronError, CroniterBadDateError, croniter

    # croniter knows R, a random moment (another schedule at each parse), and H, a hashed one
    if len(expression.split()) != 5 or re.search(r"(?<![a-z])[rh](?![a-z])", expression.lower()):
        raise ValueError(f"must be {A_CRON}")
    try:
        moments = croniter(expression, datetime(2026, 1, 1, tzinfo=UTC))
        moments.get_next()
        moments.get_prev()
    except CroniterBadCronError:
        raise ValueError(f"must be {A_CRON}") from None
    except CroniterBadDateError:
        raise ValueError("must be a cron expression of a day that comes") from None
    return expression


def _pool_name(name: str) -> str:
    if name != name.strip():
        raise ValueError(f"must be {A_POOL}")
    return name


def fields_marked(model: type[BaseModel], mark: str) -> list[str]:
    """Return the names of a model's fields that carry a mark, such as those of SHAPES_RESULTS."""
    return [
        name
        for name, field in model.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get(mark)
    ]


def _max_parallel() -> Any:
    return Field(
        16,
        ge=1,
        le=1024,
        description="Mapped tasks of one run that may work at the same time.",
        json_schema_extra={"unit": "tasks"},
    )


def _ids(kind: UnitKind, meaning: str) -> Any:
    return Field(
        [],
        description=f"{kind.plural.capitalize()} {meaning}",
        json_schema_extra={"unit": f"{kind} ids", "allowed": "a list of UUIDs"},
    )


def _overrides(unit: UnitKind) -> Any:
    return Field(
        {},
        description=f"Overrides by {unit} id, for the settings that may differ by {unit}.",
        json_schema_extra={"unit": f"settings by {unit} id", "allowed": "an object by UUID"},
    )


class JobSettings(BaseModel):
    """The settings that all jobs have in common; the defaults are the audited service's.

    A job's own settings are a subclass of `VenueSettings` or `TenantSettings`. Where it wants other
    defaults of these, it names them: `class MySettings(VenueSettings, defaults={"retries": 1})`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    UNIT: ClassVar[UnitKind]

    enabled: bool = Field(
        True,
        description="Whether the schedule is on; manual runs always work.",
        json_schema_extra={"unit": "-"},
    )
    cron: Annotated[str, Field(max_length=100), AfterValidator(_valid_cron)] = Field(
        "0 2 * * *",
        description="When the job runs: minute, hour, day, month, weekday.",
        json_schema_extra={"unit": "cron expression", "allowed": A_CRON},
    )
    timezone: Annotated[str, AfterValidator(_known_timezone)] = Field(
        "UTC",
        description="The IANA time zone that cron is read in.",
        json_schema_extra={"unit": "IANA zone", "allowed": A_TIMEZONE},
    )
    retries: int = Field(
        3,
        ge=0,
        le=20,
        description="Further tries of a task that failed.",
        json_schema_extra={"unit": "tries"},
    )
    retry_delay_seconds: int = Field(
        30,
        ge=1,
        le=3600,
        description="Time before the first retry; later ones wait longer.",
        json_schema_extra={"unit": "seconds"},
    )
    timeout_minutes: int = Field(
        60,
        ge=1,
        le=1440,
        description="Time after which a task is stopped.",
        json_schema_extra={"unit": "minutes"},
    )
    deadline_minutes: int = Field(
        120,
        ge=1,
        le=10_080,
        description="Time after the end of a run's interval by which the run should have ended.",
        json_schema_extra={"unit": "minutes"},
    )
    max_tasks: int = Field(
        50,
        ge=1,
        le=1024,
        description="Mapped tasks of one run at the most; with more groups, several share a task.",
        json_schema_extra={"unit": "tasks"},
    )
    pool: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_pool_name)] = Field(
        "default_pool",
        description="The Airflow pool of its tasks; one that Airflow does not have holds them up.",
        json_schema_extra={"unit": "pool name"},
    )

    def __init_subclass__(cls, *, defaults: Mapping[str, Any] | None = None, **names: Any) -> None:
        super().__init_subclass__(**names)

    @classmethod
    def __pydantic_init_subclass__(
        cls, *, defaults: Mapping[str, Any] | None = None, **names: Any
    ) -> None:
        super().__pydantic_init_subclass__(**names)
        if defaults:
            cls.model_validate(dict(defaults))
            for name, value in defaults.items():
                cls.model_fields[name].default = value
            cls.model_rebuild(force=True)

    @model_validator(mode="after")
    def _overrides_fit(self) -> Self:
        faults = [
            f"{self.UNIT.plural}.{unit_id}.{fault}"
            for unit_id, overrides in self.overrides.items()
            for fault in self._override_faults(overrides)
        ]
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def max_parallel(self) -> int:
        """How many mapped tasks of one run may work at the same time."""
        return int(getattr(self, f"max_parallel_{self.UNIT.plural}"))

    @property
    def include(self) -> list[UUID]:
        """The units to process, and no others; none named means all."""
        return list(getattr(self, f"include_{self.UNIT.plural}"))

    @property
    def exclude(self) -> list[UUID]:
        """The units to leave out."""
        return list(getattr(self, f"exclude_{self.UNIT.plural}"))

    @property
    def overrides(self) -> dict[UUID, dict[str, Any]]:
        """The settings that differ by unit, by its id."""
        return dict(getattr(self, self.UNIT.plural))

    def for_unit(self, unit_id: UUID) -> Self:
        """Return the settings as they hold for one unit."""
        overrides = self.overrides.get(unit_id)
        return self._overridden(overrides) if overrides else self

    def rules_hash(self) -> str:
        """Return a hash of the fields that shape a unit's results: 16 hex digits."""
        return hash_of_rules(self.rules_as_json())

    def rules_as_json(self) -> dict[str, Any]:
        """Return the fields that shape a unit's results, as JSON."""
        return self.model_dump(
            mode="json", include=set(fields_marked(type(self), "shapes_results"))
        )

    def _override_faults(self, overrides: dict[str, Any]) -> list[str]:
        may_differ = fields_marked(type(self), "per_unit")
        allowed = ", ".join(may_differ) or "none"
        faults = [
            f"{_named(name)} = {shown(value)}: may not differ by {self.UNIT}; allowed: {allowed}"
            for name, value in overrides.items()
            if name not in may_differ
        ]
        try:
            self._overridden({n: value for n, value in overrides.items() if n in may_differ})
        except ValidationError as error:
            faults += _faults(error, type(self).model_fields)
        return faults

    def _overridden(self, overrides: dict[str, Any]) -> Self:
        own = self.model_dump(mode="json", exclude={self.UNIT.plural})
        return type(self).model_validate_json(json.dumps(own | overrides))


class VenueSettings(JobSettings):
    """What the settings of every job by venue have in common."""

    UNIT = UnitKind.VENUE

    max_parallel_venues: int = _max_parallel()
    include_venues: list[UUID] = _ids(UNIT, TO_DO)
    exclude_venues: list[UUID] = _ids(UNIT, TO_LEAVE_OUT)
    venues: dict[UUID, dict[str, Any]] = _overrides(UNIT)


class TenantSettings(JobSettings):
    """What the settings of every job by tenant have in common."""

    UNIT = UnitKind.TENANT

    max_parallel_tenants: int = _max_parallel()
    include_tenants: list[UUID] = _ids(UNIT, TO_DO)
    exclude_tenants: list[UUID] = _ids(UNIT, TO_LEAVE_OUT)
    tenants: dict[UUID, dict[str, Any]] = _overrides(UNIT)


S = TypeVar("S", bound=JobSettings)


def read_settings(model: type[S], text: str | None, *, name: str) -> S:
    """Read settings from the text of a Variable.

    Args:
        model: the job's settings.
        text: a JSON object; None or blank means all defaults.
        name: what holds the text, for the message, such as "Variable rfm_scoring".

    Raises:
        SettingsError: one printable line a fault: what holds the text, the field, its value, what
            is allowed; the first `MOST_FAULTS`, and how many more there are.
    """
    if text is None or not text.strip():
        return model()
    values = _read_object(text, name)
    faults = list(_unprintable(values))
    settings = None
    if not faults:
        try:
            settings = model.model_validate_json(text)
        except ValidationError as error:
            faults = _faults(error, model.model_fields)
        else:
            faults = list(_repeated_units(model.UNIT, values.get(model.UNIT.plural, {})))
    if settings is None or faults:
        listed = faults[:MOST_FAULTS]
        if len(faults) > len(listed):
            listed.append(f"and {len(faults) - len(listed):,} more faults")
        raise SettingsError("\n".join(f"{name}: {fault}" for fault in listed))
    return settings


def hash_of_rules(rules: Mapping[str, Any]) -> str:
    """Return a hash of what shapes a unit's results, given as JSON: 16 hex digits."""
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]


def is_switched_off(text: str | None) -> bool:
    """Return whether settings have the schedule off, whatever else may be wrong with them."""
    try:
        return text is not None and _read_object(text, "").get("enabled") is False
    except SettingsError:
        return False


def shown(value: object) -> str:
    """Return a value in one printable line of about 80 characters: text 'so', the rest as JSON."""
    if isinstance(value, str):
        return f"'{printable(value, SHOWN_CHARACTERS)}'"
    return printable(json.dumps(value, ensure_ascii=False, default=str), SHOWN_CHARACTERS)


def _read_object(text: str, name: str) -> dict[str, Any]:
    try:
        # First as the model reads it: no NaN, no half of a surrogate pair, and a nesting that
        # does not hang on how deep Python's stack is already.
        from_json(text.encode(), allow_inf_nan=False)
        values = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        fault = printable(str(error))
        raise SettingsError(f"{name} is not valid JSON: {fault}") from None
    if not isinstance(values, dict):
        raise SettingsError(
            f"{name} must be a JSON object such as "
            f'{{"cron": "0 2 * * *"}}, and is {printable(text.strip(), SHOWN_CHARACTERS)}'
        )
    return values


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"it has {shown(counts.most_common(1)[0][0])} twice")
    return values


def _unprintable(values: dict[str, Any]) -> Iterator[str]:
    """Yield a fault for each text, and each key, that holds a control character."""
    left: deque[tuple[str, Any]] = deque([("", values)])
    while left:
        path, value = left.popleft()
        if isinstance(value, str) and _CONTROL.search(value):
            field = printable(path, SHOWN_CHARACTERS)
            yield f"{field} = {shown(value)}: must be text without control characters"
        elif isinstance(value, list):
            left.extend((f"{path}.{place}", item) for place, item in enumerate(value))
        elif isinstance(value, dict):
            for key, item in value.items():
                inner = f"{path}.{key}" if path else key
                if _CONTROL.search(key):
                    yield f"{_named(inner)} = {shown(item)}: must be a name of printable characters"
                else:
                    left.append((inner, item))


def _repeated_units(kind: UnitKind, overrides: dict[str, Any]) -> Iterator[str]:
    """Yield a fault for each unit that has overrides under two spellings of its id."""
    seen: dict[UUID, str] = {}
    for key in overrides:
        first = seen.setdefault(UUID(key), key)
        if first != key:
            value = shown(overrides[key])
            yield f"{kind.plural}.{_named(key)} = {value}: is the {kind} {first} again"


def _faults(error: ValidationError, known: Iterable[str]) -> list[str]:
    """Return each fault of a model in one printable line: field = value: what is allowed."""
    lines = []
    for fault in error.errors(include_url=False):
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = f"is not a setting of this job; there are: {', '.join(known)}"
        # pydantic says of a key that is not allowed: the dict, the key, "[key]"
        place = fault["loc"][:-1] if fault["loc"][1:][-1:] == ("[key]",) else fault["loc"]
        if place:
            field = ".".join(_named(str(part)) for part in place)
            lines.append(f"{field} = {shown(fault['input'])}: {message}")
        else:  # a check of several fields, or of the overrides: a line a fault
            lines += message.split("\n")
    return [printable(line) for line in lines]


def _named(field: str) -> str:
    return printable(field, SHOWN_CHARACTERS) or "''"
