"""Trials.

Copies of `rfm_scoring`, each with its own name and a trait that a test needs.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from airflow.sdk import Variable, dag, task

from venue_analytics.jobs.rfm_scoring import JOB as RFM_SCORING
from venue_analytics.orchestration import AirflowJob, ended_well


def trial(
    name: str, run_timeout: timedelta | None, score: dict[str, Any], before: Callable[[], None]
) -> None:
    """Make a DAG like that of rfm_scoring.

    Args:
        name: the name of its job, its DAG and its Variable.
        run_timeout: the timeout of the whole run.
        score: more arguments of the task `score`.
        before: called first by each process of `score`.
    """
    job = AirflowJob(replace(RFM_SCORING, name=name))

    @dag(**job.dag_arguments(__doc__ or "") | {"dagrun_timeout": run_timeout})
    def rfm_scoring() -> None:
        @task
        def plan() -> list[dict[str, Any]]:
            return job.plan(finish="finish")

        @task(task_id="score", **job.mapped_arguments | score)
        def score_venues(batch: dict[str, Any]) -> None:
            before()
            job.process(batch)

        @task(retries=0)
        def finish() -> None:
            job.finish(plan="plan", process="score")

        score_venues.expand(batch=plan()) >> finish().as_teardown() >> ended_well()

    rfm_scoring()


def nothing() -> None:
    """Do nothing."""


def die_if_told() -> None:
    """Die by SIGKILL if the Variable frail_dies is true."""
    if Variable.get("frail_dies", default="false") == "true":
        os.kill(os.getpid(), signal.SIGKILL)


trial("twin", None, {}, nothing)
trial("watched", None, {}, nothing)
trial("late", None, {}, nothing)
trial("hasty", None, {"execution_timeout": timedelta(seconds=3)}, nothing)
trial("brief", timedelta(hours=1), {}, nothing)
trial("frail", None, {}, die_if_told)
