"""The parameters of a run that only one job has."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from venue_analytics.harness.settings import fields_marked


class RunParameters(BaseModel):
    """The parameters of a run that only one job has; a job's own are a subclass.

    Each field has a default and a description: the Trigger form shows them. A field that is marked
    with `SHAPES_RESULTS` enters the rules hash.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def rules_as_json(self) -> dict[str, Any]:
        """Return the fields that shape results, as JSON."""
        marked = set(fields_marked(type(self), "shapes_results"))
        return self.model_dump(mode="json", include=marked)
