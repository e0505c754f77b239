"""The parameters of a run that only one job has."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class RunParameters(BaseModel):
    """The parameters of a run that only one job has; a job's own are a subclass.

    Each field has a default and a description: the Trigger form shows them. A field that is marked
    with `SHAPES_RESULTS` enters the rules hash.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def rules_as_json(self) -> dict[str, Any]:
        """Return what shapes results and was asked for, as JSON."""
        marked = {
            name
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict)
            and field.json_schema_extra.get("shapes_results")
        }
        return self.model_dump(mode="json", include=marked)
