"""Airflow's side of a job: the one module here that knows Airflow.

A DAG file makes one `AirflowJob` and wires its tasks: plan, the mapped one, finish, and
`ended_well`. This module holds what they do; a job's own package holds what the job does.
"""

from __future__ import annotations

import json
import logging
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, cast
from uuid import UUID, uuid4

import psycopg
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import (
    Connection,
    CronDataIntervalTimetable,
    Param,
    TriggerRule,
    Variable,
    get_current_context,
)
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError

from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.deadline import interval_lengths, report_missed
from venue_analytics.harness import (
    AnalyticsError,
    Job,
    JobSettings,
    PermanentError,
    SettingsError,
    history,
)
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.database_errors import translate_error
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import Attempt, PlannedRun, RunKey
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.plan import plan_run
from venue_analytics.harness.process import Listener, process_batch
from venue_analytics.harness.redis_server import RedisAddress
from venue_analytics.harness.request import RunRequest, parameter_schemas
from venue_analytics.harness.settings import is_switched_off, read_settings

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

DATABASE = "analytics_db"
REDIS = "analytics_redis"
DEPLOYMENT = "analytics_deployment"


class TaskFailedError(Exception):
    """A task has failed in a way that a retry may mend; its message says all there is to say."""


class Backoff(RetryPolicy):
    """Waits longer before each retry, and not as long for one task as for another.

    Airflow's own backoff grows with every try that there ever was, so that a cleared task starts
    with its longest wait; and all mapped tasks of a run come back at the same moment.

    It is asked in the task's own process; a task that was killed waits its `retry_delay`.
    """

    LONGEST_SECONDS = 600

    def __init__(self, retries: int, delay_seconds: int) -> None:
        self.retries = retries
        self.delay_seconds = delay_seconds

    def evaluate(
        self,
        exception: BaseException,  # noqa: ARG002
        try_number: int,
        max_tries: int,
        context: Any = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Return delay x 2^retry seconds, ten minutes at most, of these a random half or more."""
        # a clear sets max_tries to the tries so far plus the retries
        retry = max(0, min(try_number - (max_tries - self.retries) - 1, 20))
        seconds = min(self.delay_seconds * 2**retry, self.LONGEST_SECONDS)
        return RetryDecision.retry(timedelta(seconds=seconds * random.uniform(0.5, 1)))  # noqa: S311


class AirflowJob:
    """A job as Airflow runs it; made once in its DAG file, at parse time.

    Its Variable is read once. A setting that is not allowed does not take the DAG off the UI: the
    defaults hold for the schedule, unless that is off; the fault is shown in the docs and as a
    tag, and every run stops at plan.
    """

    def __init__(self, job: Job[Any]) -> None:
        self.job = job
        self.fault: str | None = None
        self.settings: JobSettings
        text = self._settings_text()
        try:
            self.settings = read_settings(job.settings, text, name=f"Variable {job.name}")
        except SettingsError as error:
            self.fault = str(error)
            self.settings = job.settings(**{"enabled": False} if is_switched_off(text) else {})

    def dag_arguments(self, doc: str) -> dict[str, Any]:
        """Return the arguments of @dag: schedule, deadline, parameters, docs.

        Args:
            doc: the DAG file's docstring, its runbook.
        """
        settings = self.settings
        fault = f"### Settings fault: no run passes plan\n```\n{self.fault}\n```\n\n"
        return {
            "dag_id": self.job.name,
            "description": doc.split("\n\n")[1].replace("\n", " "),
            "schedule": CronDataIntervalTimetable(settings.cron, timezone=settings.timezone)
            if settings.enabled
            else None,
            "start_date": datetime(2026, 1, 1, tzinfo=UTC),
            "catchup": False,
            "max_active_runs": 1,
            "deadline": self._deadlines() if settings.enabled and not _is_dags_test() else None,
            "doc_md": fault + doc if self.fault else doc,
            "tags": ["venue-analytics", *(["settings-fault"] if self.fault else [])],
            "params": _params(self.job),
            "default_args": {
                "pool": settings.pool,
                "retries": settings.retries,
                "retry_delay": timedelta(seconds=settings.retry_delay_seconds),
                "retry_policy": Backoff(settings.retries, settings.retry_delay_seconds),
                "execution_timeout": timedelta(minutes=settings.timeout_minutes),
            },
        }

    @property
    def mapped_arguments(self) -> dict[str, Any]:
        """The arguments of the mapped task: its name in the UI, how many at a time."""
        return {
            "map_index_template": "{{ task.op_kwargs['batch']['label'] }}",
            "max_active_tis_per_dagrun": self.settings.max_parallel,
        }

    def plan(self, *, finish: str) -> list[dict[str, Any]]:
        """Plan this run; return the number and label of each batch to map over.

        Args:
            finish: task id of finish.

        Raises:
            AirflowFailException: settings or parameters that are not allowed; or finish has ended:
                plan was cleared without it, and a new plan would turn nothing red or green.
        """
        context = get_current_context()
        dag_run, ti = context["dag_run"], context["ti"]
        states = ti.get_task_states(
            dag_id=dag_run.dag_id, run_ids=[dag_run.run_id], task_ids=[finish]
        ).get(dag_run.run_id, {})
        if states.get(finish) in ("success", "failed"):
            raise AirflowFailException(
                "plan was cleared without what follows it: the plan before stands; clear the whole "
                "run"
            )
        parameters = dict(context["params"]) | dict(dag_run.conf or {})

        def is_over(run_id: str) -> bool:
            try:
                return ti.get_dagrun_state(dag_run.dag_id, run_id) in ("success", "failed")
            except AirflowRuntimeError:
                return True  # somebody has deleted it

        try:
            request = RunRequest.read(parameters, self.job)
            tried = None if request.settings is None else json.dumps(request.settings)
            settings = read_settings(
                self.job.settings,
                tried or self._settings_text(),
                name=f"Variable {self.job.name}" if tried is None else "parameter settings",
            )
            with self._connect(settings) as connection:
                run = plan_run(
                    connection,
                    self._leases(),
                    self.job,
                    self._key(_deployment()),
                    settings,
                    request,
                    as_of=request.as_of or _as_of(dag_run),
                    plan_try=ti.try_number,
                    is_over=is_over,
                )
                batches = history.load_batches(connection, run)
        except AnalyticsError as error:
            _fail(error)
        except psycopg.Error as error:
            _fail(translate_error(error))
        return [{"number": batch.number, "label": batch.label} for batch in batches]

    def process(self, batch: dict[str, Any]) -> None:
        """Process one batch: the body of the mapped task.

        Raises:
            AirflowFailException: units failed, and a retry cannot help any of them.
            TaskFailedError: units failed; the retry processes these alone.
        """
        context = get_current_context()
        try:
            with self._connect(self.settings) as connection:
                run = self._planned(connection)
                (planned,) = history.load_batches(connection, run, batch["number"])
            batch_try = BatchTry.of(
                self.job,
                run,
                planned,
                try_number=context["ti"].try_number,
                clear_number=context["dag_run"].clear_number or 0,
            )
            failures = process_batch(
                lambda: self._connect(batch_try.settings),
                self._leases(),
                self.job,
                batch_try,
                listener=Listener(around=_log_group),
            )
        except AnalyticsError as error:
            _fail(error)
        except psycopg.Error as error:
            _fail(translate_error(error))
        if failures:
            count = f"{len(failures)} of {len(planned.units)} {self.job.unit.plural}"
            message = f"{count} failed: "
            message += "; ".join(map(str, failures))
            if all(failure.permanent for failure in failures):
                raise AirflowFailException(message)
            raise TaskFailedError(message)

    def finish(self, *, plan: str, process: str) -> None:
        """Compare what was planned with what ended well; the body of the teardown.

        Args:
            plan: task id of plan.
            process: task id of the mapped task.

        Raises:
            AirflowFailException: plan failed, or a unit has not ended well; each is named.
        """
        context = get_current_context()
        dag_run = context["dag_run"]
        states = context["ti"].get_task_states(
            dag_id=dag_run.dag_id, run_ids=[dag_run.run_id], task_ids=[plan, process]
        )[dag_run.run_id]
        if states.get(plan) != "success":
            raise AirflowFailException(f"{plan} ended {states.get(plan)}: nothing was done")
        try:
            run, attempts, unfinished = self._finish(states, process)
        except psycopg.Error as error:
            raise AirflowFailException(f"{translate_error(error)}; clear this task") from None
        for line in run.left_behind:
            log.warning("reported late: %s", line)
        self._log_report(run, attempts)
        if unfinished:
            lines = "\n".join(f"  {line}" for line in unfinished)
            raise AirflowFailException(f"not ended well ({len(unfinished)}):\n{lines}")

    def _finish(
        self, states: dict[str, Any], process: str
    ) -> tuple[PlannedRun, dict[UUID, Attempt], list[str]]:
        with self._connect(self.settings) as connection:
            run = self._planned(connection)
            numbers = [batch.number for batch in history.load_batches(connection, run)]
            failed = [n for n in numbers if states.get(f"{process}_{n}") != "success"]
            unfinished = finish_run(
                connection, self._leases(), self.job, run, failed_batches=failed
            )
            return run, history.last_attempts(connection, run), unfinished

    def _log_report(self, run: PlannedRun, attempts: dict[UUID, Attempt]) -> None:
        shown = history.report_of(self.job, run, attempts)
        for line in shown.lines:
            log.info(line)
        if run.dry_run:
            log.info("dry run: nothing was written")
            for table in shown.tables:
                for row in (table.columns, *table.rows):
                    log.info("  %s", "  ".join(row))

    def _deadlines(self) -> list[DeadlineAlert]:
        """Arm a run with its deadline.

        Airflow counts from the interval's start (counted from the moment of queueing, a clear is
        answered with HTTP 500): one alert for each length that the schedule's intervals have, of
        which `report_missed` heeds the one that fits the run.
        """
        settings = self.settings
        names = {"job": self.job.name, "deadline_minutes": settings.deadline_minutes}
        return [
            DeadlineAlert(
                reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
                interval=length + timedelta(minutes=settings.deadline_minutes),
                callback=AsyncCallback(report_missed, kwargs=names),
            )
            for length in interval_lengths(settings.cron, settings.timezone)
        ]

    def _settings_text(self) -> str | None:
        # The raw text: asked to read JSON, Variable.get takes malformed JSON for a missing one.
        text: str | None = Variable.get(self.job.name, default=None)
        return text

    def _key(self, deployment: UUID) -> RunKey:
        return RunKey(deployment, self.job.name, get_current_context()["dag_run"].run_id)

    def _planned(self, connection: psycopg.Connection) -> PlannedRun:
        run = history.load_run(connection, self._key(_deployment()))
        if run is None:
            raise AirflowFailException("this run's plan is not in history: clear plan and the rest")
        return run

    def _connect(self, settings: JobSettings) -> psycopg.Connection:
        return open_database(
            application_name=f"venue_analytics {self.job.name}",
            statement_timeout_seconds=settings.timeout_minutes * 60,
        )

    def _leases(self) -> Leases:
        return Leases(redis_client(), self.job.name)


def open_database(*, application_name: str, statement_timeout_seconds: int) -> psycopg.Connection:
    """Connect to `analytics_db` through Airflow's hook, with the rights and limits of a job.

    Args:
        application_name: shown in pg_stat_activity.
        statement_timeout_seconds: the server cancels a longer statement.

    Raises:
        BadConnectionError: the connection cannot be read, or its login may not act for the jobs.
        psycopg.OperationalError: the server cannot be reached.
    """
    # here, as below: a DAG file's parsing does not need it
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    stored = Connection.get(DATABASE)
    address = DatabaseAddress.parse(stored.as_json(), name=DATABASE)

    def by_hook(session: dict[str, Any]) -> psycopg.Connection:
        # the hook lets an extra prevail over its parameters and the fields; rows are to be tuples
        fields = {"host" if stored.host else None, "port", "user", "password", "dbname"}
        extra = {key: value for key, value in address.extra.items() if key not in fields}
        stored.extra = json.dumps(extra | session | {"cursor": None})
        return cast("psycopg.Connection", PostgresHook(DATABASE, connection=stored).get_conn())

    return connect(
        address,
        by=by_hook,
        application_name=application_name,
        statement_timeout_seconds=statement_timeout_seconds,
    )


def redis_client() -> redis.Redis:
    """Return Airflow's client of `analytics_redis`, which gives up in time and never asks twice.

    Raises:
        BadConnectionError: the connection cannot be read.
        PermanentError: it asks for what the leases cannot use.
    """
    from airflow.providers.redis.hooks.redis import RedisHook

    address = RedisAddress.parse(Connection.get(REDIS).as_json(), name=REDIS)
    if address.conn_type == "rediss":
        # the hook would send the password without TLS
        raise PermanentError(
            f'{REDIS}: its type is rediss: must be redis, with {{"ssl": true}} in its extra'
        )
    return address.client(by=RedisHook(REDIS).get_conn)


def ended_well() -> EmptyOperator:
    """Return the last task of a run, which does nothing but keep a run red that `finish` failed.

    A run is red when one of its leaves fails. Airflow takes a task for a leaf if its direct
    downstream tasks are teardowns that may fail, so it is the kinds of the last two that count:

    - `finish`, a teardown that may fail, leaves the mapped task a leaf: a unit that fails turns
      the run red, though nobody cleared `finish` with it.
    - This one, a teardown that may not fail, is a leaf itself. It waits in vain for a `finish` that
      failed. A task that is no teardown would be skipped when somebody marks the run failed.
    """
    task = EmptyOperator(
        task_id="ended_well", doc_md="Does nothing; keeps a run red until `finish` has succeeded."
    )
    task.as_teardown(on_failure_fail_dagrun=True)
    task.trigger_rule = TriggerRule.ALL_SUCCESS  # as_teardown has it run whatever happened before
    return task


@contextmanager
def _log_group(label: str) -> Iterator[None]:
    """Fold what is logged of units that are processed together, under their names."""
    log.info("::group::%s", label)
    try:
        yield
    finally:
        log.info("::endgroup::")


def _is_dags_test() -> bool:
    """Return whether this process is `airflow dags test`.

    At a good end it reads the ids of the deadlines' stored alerts, which a DAG that was only parsed
    does not have, and exits 1 (apache/airflow#73428).
    """
    return sys.argv[1:3] == ["dags", "test"]


def _params(job: Job[Any]) -> dict[str, Param]:
    """Return the fields of the Trigger form."""
    return {
        name: Param(schema.pop("default", None), **schema)
        for name, schema in parameter_schemas(job).items()
    }


def _as_of(dag_run: Any) -> datetime:
    """Return what a run is as of; a clear keeps it.

    Its interval's end, or, where the interval is none of its own (manual, asset and API runs),
    the moment after which it was to run.
    """
    own_interval = dag_run.run_type in ("scheduled", "backfill") and dag_run.data_interval_end
    moment: datetime = dag_run.data_interval_end if own_interval else dag_run.run_after
    return moment


def _deployment() -> UUID:
    """Return the id of this Airflow among those that share the analytics database."""
    known = Variable.get(DEPLOYMENT, default=None)
    if known is None:
        known = str(uuid4())
        Variable.set(DEPLOYMENT, known, description="Names this Airflow in the jobs' history.")
    return UUID(known)


def _fail(error: AnalyticsError) -> NoReturn:
    if isinstance(error, PermanentError | SettingsError):
        raise AirflowFailException(str(error)) from None
    raise TaskFailedError(str(error)) from error
