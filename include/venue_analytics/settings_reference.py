"""Generate docs/settings.md, the reference of every setting, from the models.

Run `python -m venue_analytics.settings_reference` (or `make docs`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from venue_analytics.harness import JobSettings, TenantSettings, VenueSettings
from venue_analytics.jobs import JOBS

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

INTRODUCTION = """\
<!-- Written by `make docs` from the models of the settings; edit those. -->
# Settings

Each job has one Airflow Variable, named after the job. Its value is a JSON object. A setting that
it leaves out has its default:

```json
{"cron": "30 4 * * *", "timezone": "Europe/Berlin", "pool": "venue_analytics"}
```

Edit it in the UI under *Admin → Variables*. If the environment of Airflow's processes has a
variable `AIRFLOW_VAR_` followed by the job's name in capitals, its value is used instead, and the
UI does not show it.

**Check before you save:**

```sh
python -m venue_analytics check-settings                                # the settings in force
python -m venue_analytics check-settings --file airflow_settings.yaml   # the settings in a file
```

**When an edit takes effect.** The schedule follows within about 30 seconds, everything else with
the next run: a run keeps the settings that it was planned with. To apply an edit to a run that
has begun, clear its `plan` with everything that follows.

Airflow itself applies retries, timeout, pool and parallelism, so these follow the edit, whatever
the run was planned with. Tasks that already exist keep their number of retries and their pool. If
Airflow does not have the pool, the tasks wait without a message (`check-settings` reports it):
correct the setting, then clear the `plan` that waits.

**Invalid settings** are rejected as a whole:

- a name that is not a setting, or is given twice;
- a value of another type (`"3"` and `true` are not numbers);
- a value out of range;
- malformed JSON.

The DAG then stays in the UI, with the tag `settings-fault` and on its default schedule (on none
if `enabled` is false). Its docs and the log of `plan` list the faults, one per line, with the
allowed values. No run passes `plan` until the settings are corrected.

**One venue may differ** in the settings marked so below. Name the venue by its id. Its settings,
together with those it shares with the others, must be valid:

```json
{"vip_min_total": 12, "venues": {"10000000-0000-4000-8000-000000000001": {"vip_min_total": 13}}}
```
"""


def reference() -> str:
    """Return the page: a table of the common settings, then a table per job."""
    parts = [INTRODUCTION]
    common: dict[type[JobSettings], dict[str, Any]] = {}
    for model in (VenueSettings, TenantSettings):
        if any(issubclass(job.settings, model) for job in JOBS.values()):
            common[model] = _fields(model)
            parts += [f"## Common to all jobs by {model.UNIT}\n", *_table(common[model])]
    for job in JOBS.values():
        fields = _fields(job.settings)
        shared = next(of for model, of in common.items() if issubclass(job.settings, model))
        parts.append(f"\n## {job.name}\n")
        if other := [n for n in shared if fields[n]["default"] != shared[n]["default"]]:
            defaults = ", ".join(f"`{n}` = `{json.dumps(fields[n]['default'])}`" for n in other)
            parts.append(f"Its own defaults of the common settings: {defaults}.\n")
        parts += _table({n: field for n, field in fields.items() if n not in shared})
    return "\n".join(parts) + "\n"


def allowed(field: Mapping[str, Any]) -> str:
    """Return a setting's range: `allowed` of its model, else what follows from type and bounds.

    Args:
        field: its JSON schema.

    Raises:
        ValueError: the schema has neither.
    """
    if text := field.get("allowed"):
        return str(text)
    if alternatives := field.get("anyOf"):
        return ", or ".join(allowed(alternative) for alternative in alternatives)
    match field:
        case {"type": "null"}:
            return "null"
        case {"enum": [*values]}:
            return " or ".join(map(str, values))
        case {"type": "boolean"}:
            return "true or false"
        case {"minimum": least, "maximum": most}:
            return f"{least} to {most}"
        case {"minLength": least, "maxLength": most}:
            return f"{least} to {most} characters"
    raise ValueError(f"setting {field}: needs bounds on both sides, or 'allowed' in its schema")


def _fields(settings: type[JobSettings]) -> dict[str, dict[str, Any]]:
    fields: dict[str, dict[str, Any]] = settings.model_json_schema()["properties"]
    return fields


def _allowed(name: str, field: Mapping[str, Any]) -> str:
    try:
        return allowed(field)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _table(fields: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    yield "| setting | unit | default | range | may differ by venue | meaning |"
    yield "|---|---|---|---|---|---|"
    for name, field in fields.items():
        cells = (
            f"`{name}`",
            field["unit"],
            f"`{json.dumps(field['default'])}`",
            _allowed(name, field),
            "yes" if field.get("per_unit") else "",
            field["description"],
        )
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
