"""The request for one run: the Params of a DAG run, the options of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from venue_analytics.harness.errors import PermanentError
from venue_analytics.harness.job import Job
from venue_analytics.harness.moments import Moment
from venue_analytics.harness.parameters import RunParameters

#: Parameters only for jobs with a preview.
OF_A_PREVIEW = ("dry_run", "settings")


class RunRequest(BaseModel):
    """What a run is asked to do, besides what its settings say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    units: list[UUID] | None = Field(
        None, description="Ids of the {units} to do; empty means all that the settings name."
    )
    as_of: Moment | None = Field(
        None,
        title="As of",
        description="Results as of this moment, in UTC unless it names an offset; empty means "
        "the run's own.",
    )
    force: bool = Field(False, description="Replace results of a later as_of.")
    dry_run: bool = Field(
        False,
        title="Dry run",
        description="Only report what the settings would change, compared with the current "
        "results; nothing is written.",
    )
    settings: dict[str, Any] | None = Field(
        None,
        title="Settings to try",
        description="With a dry run: settings to try instead of those in force. A complete "
        "replacement for the Variable: omitted settings take their defaults. Empty: those in "
        "force.",
    )
    parameters: SerializeAsAny[RunParameters] = RunParameters()

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if self.dry_run and (self.as_of is not None or self.force):
            raise ValueError(
                "dry_run compares with the current results: it cannot be combined with as_of or "
                "force"
            )
        if self.settings is not None and not self.dry_run:
            raise ValueError("settings are allowed only with dry_run; a run takes those in force")
        return self

    @classmethod
    def read(cls, conf: Mapping[str, Any], job: Job[Any]) -> RunRequest:
        """Read a DAG run's configuration.

        Args:
            conf: by the names of `parameter_schemas`.
            job: the job that is to run.

        Raises:
            PermanentError: an unknown key, or a value that is not allowed; each is named.
        """
        # the form shows {} where nothing was entered
        given = dict(conf) | ({"settings": None} if conf.get("settings") == {} else {})
        own = job.parameters.model_fields
        known = list(parameter_schemas(job))
        faults = [
            f"{name} = {str(value)[:80]!r}: is not a parameter of this run; "
            f"allowed: {', '.join(known)}"
            for name, value in given.items()
            if name not in known
        ]
        common = {
            "units" if name == job.unit.plural else name: value
            for name, value in given.items()
            if name in known and name not in own
        }
        try:
            parameters = job.parameters.model_validate({n: v for n, v in given.items() if n in own})
            request = cls.model_validate({**common, "parameters": parameters})
        except ValidationError as error:
            faults += [_fault(fault, job) for fault in error.errors(include_url=False)]
        if faults:
            raise PermanentError(f"run parameters: {'; '.join(faults)}")
        return request


def parameter_schemas(job: Job[Any]) -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each parameter that a run of a job takes, by its name.

    They are as Airflow's Trigger form takes them: without references and alternatives.

    Raises:
        TypeError: a parameter of the job has the name of one that every run has, or is of more
            than one type besides null.
    """
    schemas: dict[str, dict[str, Any]] = {}
    for name, schema in _properties(RunRequest).items():
        if name == "units":
            schemas[job.unit.plural] = schema | {
                "title": job.unit.plural.capitalize(),
                "description": schema["description"].format(units=job.unit.plural),
            }
        elif name != "parameters" and (job.preview is not None or name not in OF_A_PREVIEW):
            schemas[name] = schema
    own = _properties(job.parameters)
    if taken := schemas.keys() & own.keys():
        raise TypeError(f"parameter {min(taken)} of {job.name}: every run has one of that name")
    return {name: _as_the_form_takes_it(name, one) for name, one in (schemas | own).items()}


def _properties(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return the schemas of a model's fields, each with the definitions it refers to in place."""
    schema = model.model_json_schema()
    fields: dict[str, dict[str, Any]] = _inlined(
        schema.get("properties", {}), schema.get("$defs", {})
    )
    return fields


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    merged = definitions[name] | schema if name else schema
    return {key: _inlined(one, definitions) for key, one in merged.items() if key != "$ref"}


def _as_the_form_takes_it(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with a list of types instead of a choice between a value and null."""
    if "anyOf" not in schema:
        return schema
    values = [kind for kind in schema["anyOf"] if kind.get("type") != "null"]
    if len(values) != 1 or "type" not in values[0]:
        raise TypeError(f"parameter {name}: must be of one type, or of one type or null")
    (value,) = values
    flat = {key: one for key, one in schema.items() if key != "anyOf"}
    flat |= value | {"type": ["null", value["type"]]}
    return flat | ({"enum": [*value["enum"], None]} if "enum" in value else {})


def _fault(fault: ErrorDetails, job: Job[Any]) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:  # a check of several fields
        return message
    first, *others = fault["loc"]
    place = [job.unit.plural if first == "units" else first, *others]
    return f"{'.'.join(map(str, place))} = {str(fault['input'])[:80]!r}: {message}"
