"""Parses the DAG files, once for each line on standard input: the Variable's JSON text, or null.

A process of its own: what a DAG file imports can only be seen where nothing has been imported yet.
Each line is answered with one line of JSON on standard output.
"""

import json
import os
import sys
from typing import Any

# The answers' own stream: whatever Airflow prints goes to standard error.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from airflow.dag_processing.dagbag import DagBag  # noqa: E402
from airflow.sdk import DAG, Variable, timezone  # noqa: E402
from airflow.sdk.definitions.mappedoperator import MappedOperator  # noqa: E402
from airflow.serialization.encoders import coerce_to_core_timetable  # noqa: E402
from airflow.timetables.base import TimeRestriction  # noqa: E402

airflows_own = set(sys.modules)
read: list[str] = []
get_variable = Variable.get


def noted_get(key: str, *arguments: Any, **options: Any) -> Any:
    read.append(key)
    return get_variable(key, *arguments, **options)


def parse(variable: str | None) -> dict[str, Any]:
    """Parse all files, and tell what came of it and what it took."""
    read.clear()
    os.environ.pop("AIRFLOW_VAR_RFM_SCORING", None)
    if variable is not None:
        os.environ["AIRFLOW_VAR_RFM_SCORING"] = variable
    bag = DagBag()
    return {
        "import_errors": bag.import_errors,
        "variables_read": read,
        "imported": sorted(set(sys.modules) - airflows_own),
        "dags": {dag_id: described(dag) for dag_id, dag in bag.dags.items()},
    }


def next_run(dag: DAG) -> str | None:
    """Ask for the next run's moment as the scheduler does; a fault's name where there is none."""
    restriction = TimeRestriction(timezone.coerce_datetime(dag.start_date), None, catchup=False)
    try:
        info = coerce_to_core_timetable(dag.timetable).next_dagrun_info(
            last_automated_data_interval=None, restriction=restriction
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
        return f"{type(error).__name__}: {error}"
    return info.run_after.isoformat() if info else None


def described(dag: DAG) -> dict[str, Any]:
    """Tell what a DAG is."""
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


setattr(Variable, "get", noted_get)  # noqa: B010 - mypy lets nobody assign a method
for line in sys.stdin:
    answers.write(json.dumps(parse(json.loads(line))) + "\n")
    answers.flush()
