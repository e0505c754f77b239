"""Runs jobs by `dag.test()`, once for each line of JSON on standard input.

It is a separate process because Airflow is configured by its environment and warns when imported.
Each line has the job, the conf and the changes to the environment. The answer is one line of JSON
on standard output.
"""

import json
import os
import sys
from typing import Any

# The answers have their own stream; whatever Airflow prints goes to standard error.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from airflow.dag_processing.dagbag import DagBag  # noqa: E402


def run(job: str, environment: dict[str, str | None], conf: dict[str, Any]) -> dict[str, Any]:
    """Parse the job's file again, run its whole DAG, and return how each task ended."""
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    dag = DagBag(f"{os.environ['AIRFLOW__CORE__DAGS_FOLDER']}/{job}.py").dags[job]
    # Only a stored DAG's alerts have the ids that Airflow needs when a run succeeds (3.3.2).
    dag.deadline = None
    dag_run = dag.test(run_conf=conf, logical_date=None)
    return {
        "run_id": dag_run.run_id,
        "state": dag_run.state,
        "run_after": dag_run.run_after.isoformat(),
        "tasks": [
            {
                "task_id": task.task_id,
                "label": task.rendered_map_index,
                "state": task.state,
                "try_number": task.try_number,
            }
            for task in dag_run.get_task_instances()
        ],
    }


for line in sys.stdin:
    answers.write(json.dumps(run(**json.loads(line))) + "\n")
    answers.flush()
