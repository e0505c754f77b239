"""What somebody asks of one run: the Params of a DAG run, the options of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from venue_analytics.harness.errors import PermanentError

#: No sale is older; earlier years come near the end of what databases and clocks can count.
EARLIEST = 1970


def _moment(value: object) -> object:
    if value is None or isinstance(value, datetime):
        return value
    try:
        read = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(
            "must be an ISO date or timestamp such as 2026-03-01 or 2026-03-01T02:00:00+01:00"
        ) from None
    if read.year < EARLIEST:
        raise ValueError(f"must be a moment of the year {EARLIEST} or later")
    return read if read.tzinfo else read.replace(tzinfo=UTC)


class RunRequest(BaseModel):
    """What a run is asked to do, besides what its settings say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    venues: list[UUID] | None = Field(
        None, description="Ids of the venues to do; empty means all that the settings name."
    )
    as_of: Annotated[AwareDatetime | None, BeforeValidator(_moment)] = Field(
        None,
        description="Results as of this moment, in UTC unless it names an offset; empty means "
        "the run's own.",
    )
    force: bool = Field(False, description="Replace results of a later as_of.")
    dry_run: bool = Field(
        False,
        description="Only say what the settings would change, compared with what stands; nothing "
        "is written.",
    )
    settings: dict[str, Any] | None = Field(
        None,
        description="With a dry run: settings to try instead of those in force, all of them as in "
        "the Variable: what is left out has its default, whatever the Variable says. Empty: those "
        "in force.",
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if self.dry_run and (self.as_of is not None or self.force):
            raise ValueError(
                "dry_run compares with what stands: it goes with neither as_of nor force"
            )
        if self.settings is not None and not self.dry_run:
            raise ValueError("settings are tried by a dry_run alone; a run takes those in force")
        return self

    @classmethod
    def read(cls, conf: Mapping[str, Any]) -> RunRequest:
        """Read a DAG run's configuration.

        Raises:
            PermanentError: an unknown key, or a value that is not allowed; each is named.
        """
        # the form shows {} where nothing was entered
        given = dict(conf) | ({"settings": None} if conf.get("settings") == {} else {})
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            known = ", ".join(cls.model_fields)
            faults = "; ".join(_fault(fault, known) for fault in error.errors(include_url=False))
            raise PermanentError(f"run parameters: {faults}") from None


def _fault(fault: ErrorDetails, known: str) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:  # a check of several fields
        return message
    if fault["type"] == "extra_forbidden":
        message = f"is not a parameter of this run; allowed: {known}"
    return f"{'.'.join(map(str, fault['loc']))} = {str(fault['input'])[:80]!r}: {message}"


def moment(as_of: datetime) -> str:
    """Write a moment for people, to the second."""
    return as_of.isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")
