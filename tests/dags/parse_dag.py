"""Parses DAG files, once for each line on standard input: a job and its Variable's text, as JSON.

It is a separate process because a DAG file's imports show only where nothing was imported before.
The answer to each line is one line of JSON on standard output. A null job means all files; a null
text means no Variable.
"""

import json
import os
import sys
from typing import Any

# The answers have their own stream; whatever Airflow prints goes to standard error.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from airflow.dag_processing.dagbag import DagBag  # noqa: E402
from airflow.sdk import DAG, Variable, timezone  # noqa: E402
from airflow.sdk.definitions.mappedoperator import MappedOperator  # noqa: E402
from airflow.serialization.encoders import coerce_to_core_timetable  # noqa: E402
from airflow.timetables.base import TimeRestriction  # noqa: E402

DAGS = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
airflows_own = set(sys.modules)
read: list[str] = []
get_variable = Variable.get


def noted_get(key: str, *arguments: Any, **options: Any) -> Any:
    read.append(key)
    return get_variable(key, *arguments, **options)


def parse(job: str | None, text: str | None) -> dict[str, Any]:
    """Parse the file of a job, or all files; return DAGs, errors, imports and Variables read."""
    read.clear()
    variable = f"AIRFLOW_VAR_{str(job).upper()}"
    if text is not None:
        os.environ[variable] = text
    try:
        bag = DagBag(DAGS if job is None else f"{DAGS}/{job}.py")
    finally:
        os.environ.pop(variable, None)
    return {
        "import_errors": bag.import_errors,
        "variables_read": read,
        "imported": sorted(set(sys.modules) - airflows_own),
        "dags": {dag_id: described(dag) for dag_id, dag in bag.dags.items()},
    }


def next_run(dag: DAG) -> str | None:
    """Return the moment of the next run as the scheduler computes it, or its error."""
    restriction = TimeRestriction(timezone.coerce_datetime(dag.start_date), None, catchup=False)
    try:
        info = coerce_to_core_timetable(dag.timetable).next_dagrun_info(
            last_automated_data_interval=None, restriction=restriction
        )
    except Exception as error:  # noqa: BLE001 - the test shows whatever it is
        return f"{type(error).__name__}: {error}"
    return info.run_after.isoformat() if info else None


def described(dag: DAG) -> dict[str, Any]:
    """Return a description of a DAG."""
    return {
        "file": dag.fileloc,
        "doc_md": dag.doc_md,
        "cron": getattr(dag.timetable, "expression", None),
        "timezone": getattr(getattr(dag.timetable, "timezone", None), "key", None)
        or str(getattr(dag.timetable, "timezone", None)),
        "next_run": next_run(dag),
        "timetable": type(dag.timetable).__name__,
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "tags": sorted(dag.tags),
        "teardowns": {task.task_id: task.on_failure_fail_dagrun for task in dag.teardowns},
        "params": {
            name: param.schema | {"description": param.description}
            for name, param in ((name, dag.params.get_param(name)) for name in dag.params)
        },
        "tasks": {
            task.task_id: {
                "mapped": isinstance(task, MappedOperator),
                "map_index_template": task.partial_kwargs.get("map_index_template")
                if isinstance(task, MappedOperator)
                else None,
                "at_a_time": task.max_active_tis_per_dagrun,
                "retries": task.retries,
                "execution_timeout_seconds": task.execution_timeout.total_seconds()
                if task.execution_timeout
                else None,
                "pool": task.pool,
                "upstream": sorted(task.upstream_task_ids),
            }
            for task in dag.tasks
        },
    }


setattr(Variable, "get", noted_get)  # noqa: B010 - mypy forbids assigning to a method
for line in sys.stdin:
    answers.write(json.dumps(parse(**json.loads(line))) + "\n")
    answers.flush()
