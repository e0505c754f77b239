"""What somebody asks of one run: the Params of a DAG run, the options of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from venue_analytics.harness.errors import PermanentError


class RunRequest(BaseModel):
    """What a run is asked to do, besides what its settings say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    venues: list[UUID] | None = Field(
        None, description="Ids of the venues to do; empty means all that the settings name."
    )
    as_of: AwareDatetime | None = Field(
        None, description="Results as of this moment, with its UTC offset; empty means the run's."
    )
    force: bool = Field(False, description="Replace results of a later as_of.")

    @classmethod
    def read(cls, conf: Mapping[str, Any]) -> RunRequest:
        """Read a DAG run's configuration.

        Raises:
            PermanentError: an unknown key, or a value that is not allowed; each is named.
        """
        try:
            return cls.model_validate(dict(conf))
        except ValidationError as error:
            known = ", ".join(cls.model_fields)
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc']))} = {str(fault['input'])[:80]!r}: "
                + (
                    f"is not a parameter of this run; allowed: {known}"
                    if fault["type"] == "extra_forbidden"
                    else fault["msg"]
                )
                for fault in error.errors(include_url=False)
            )
            raise PermanentError(f"run parameters: {faults}") from None


def moment(as_of: datetime) -> str:
    """Write a moment for people, to the second."""
    return as_of.isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")
