"""Start a demo's servers and Airflow, supervise them, and stop all of them at the end."""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import httpx
import psycopg

from venue_analytics.demo import airflow
from venue_analytics.demo.airflow import AirflowApi, Dag, Run
from venue_analytics.demo.interrupts import Interrupts, Stopped
from venue_analytics.demo.job_run import (
    Before,
    failures,
    follow,
    scheduled_or_triggered,
    triggered_with,
    wait_for_dag,
)
from venue_analytics.demo.platform import PlatformConflictError, load_platform
from venue_analytics.demo.processes import Processes, ProcessFailedError, end_recorded
from venue_analytics.demo.profile import ROOT, Profile, write_private
from venue_analytics.demo.servers import PostgresServer, ServerError, ValkeyServer
from venue_analytics.demo.settings_file import SettingsFile
from venue_analytics.demo.terminal import Terminal
from venue_analytics.jobs import JOBS

DATABASES = {"analytics": "analytics_owner", "airflow": "airflow"}
OWNER_CONNECTION = "AIRFLOW_CONN_ANALYTICS_DB_OWNER"
JOBS_CONNECTION = "AIRFLOW_CONN_ANALYTICS_DB"
REDIS_CONNECTION = "AIRFLOW_CONN_ANALYTICS_REDIS"
CLI = (sys.executable, "-m", "venue_analytics")
AIRFLOW_VERSION = version("apache-airflow")
API_SECONDS = 300
POLL_SECONDS = 0.2
TOP = 10
FAULTS = (
    ServerError,
    ProcessFailedError,
    PlatformConflictError,
    airflow.AirflowError,
    httpx.HTTPError,
    psycopg.Error,
)


@dataclass(frozen=True)
class Purchases:
    """A file of purchases, and the options for loading it."""

    file: Path
    as_of: datetime | None
    options: tuple[str, ...]


class Demo:
    """One profile's servers and Airflow.

    Args:
        profile: the profile.
        terminal: where progress is printed.
        interrupts: the signals that end the demo.
    """

    def __init__(self, profile: Profile, terminal: Terminal, interrupts: Interrupts) -> None:
        self._profile = profile
        self._terminal = terminal
        self._interrupts = interrupts
        self._began = datetime.now(UTC)
        self._secrets = profile.secrets()
        self._ports = profile.ports()
        self._postgres = PostgresServer(profile.postgres)
        self._valkey = ValkeyServer(profile.valkey, self._ports.valkey)
        self._processes = Processes(
            profile.processes, profile.logs, airflow.plain_environment(), interrupts
        )
        self._airflow_environment = airflow.environment(
            profile,
            self._ports,
            self._secrets,
            self._postgres.uri("airflow", "airflow", "psycopg2"),
        )
        self._migrated_by = profile.directory / "airflow-version"
        self.password = self._secrets.admin_password
        self.api = AirflowApi(self._ports.ui, self.password)

    def start_servers(self) -> None:
        """Start PostgreSQL, with the roles and databases, and Valkey."""
        with self._terminal.stage("PostgreSQL and Valkey") as stage:
            end_recorded(self._profile.processes)
            with self._interrupts.held():
                self._postgres.start()
            with self._interrupts.held():
                self._valkey.start()
                self._processes.record("valkey", self._valkey.pid or 0)
            self._postgres.prepare(DATABASES)
            stage.label = f"PostgreSQL {self._postgres.version} and Valkey are up"

    def start_airflow(self) -> None:
        """Start the API server, or the migration of Airflow's database if it must come first."""
        passwords = {airflow.ADMIN: self._secrets.admin_password}
        write_private(airflow.passwords_file(self._profile), json.dumps(passwords))
        if self._migrated_by.exists() and self._migrated_by.read_text() == AIRFLOW_VERSION:
            self._start_api_server()
        else:
            self._migrated_by.unlink(missing_ok=True)
            self._processes.start("airflow-migrate", airflow.MIGRATE, self._airflow_environment)

    def go_on_with_airflow(self) -> None:
        """Start the API server if the migration that it waits for has ended."""
        if self._processes.ended("airflow-migrate"):
            self._finish_metadata()

    def load_platform(self, scale: float) -> None:
        """Load the synthetic platform up to today's midnight (UTC), then migrate."""
        with self._terminal.stage("Demo platform") as stage:
            midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            owner = self._postgres.uri("analytics", "analytics_owner")
            loaded = load_platform(owner, until=midnight, scale=scale)
            stage.label = (
                f"Demo platform: {loaded.orders:,} orders of {loaded.users:,} customers "
                f"at {loaded.venues} venues"
            )
        self.go_on_with_airflow()
        self._migrate("platform")

    def load_purchases(self, purchases: Purchases) -> datetime:
        """Load a file of purchases; return the as_of of the jobs' runs.

        By default that is the midnight (UTC) after the last purchase, at most now.
        """
        self._migrate("csv")
        self.go_on_with_airflow()
        command = (*CLI, "load-orders", str(purchases.file), "--json", *purchases.options)
        with self._terminal.stage(f"Purchases of {purchases.file.name}"):
            loading = self._processes.pipe("load-orders", command, self._jobs_environment())
            lines = (loading.stdout.read() if loading.stdout else "").splitlines()
            self._processes.wait("load-orders")
        for line in lines[:-1]:
            self._terminal.say(line)
        if purchases.as_of is not None:
            return purchases.as_of
        last = datetime.fromisoformat(json.loads(lines[-1])["last_purchase"]).astimezone(UTC)
        midnight = last.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        return min(midnight, datetime.now(UTC))

    def finish_airflow(self, *, scheduled: bool) -> dict[str, Before]:
        """Wait for the API server, import the settings, and start the other services.

        Args:
            scheduled: whether the jobs run by their schedules.

        Returns:
            The DAG and runs of each job before the scheduler started.
        """
        if not self._migrated_by.exists():
            with self._terminal.stage("Airflow's database"):
                self._finish_metadata()
        with self._terminal.stage("Airflow's API server, with its connections and settings"):
            deadline = time.monotonic() + API_SECONDS
            while not self.api.log_in():
                self._processes.check()
                if time.monotonic() > deadline:
                    raise airflow.AirflowError(
                        f"the API server does not answer on port {self._ports.ui}; see "
                        f"{self._processes.log('api-server')}"
                    )
                time.sleep(POLL_SECONDS)
            self.api.import_settings(self._settings(scheduled=scheduled))
            before = {job: Before.note(self.api, job) for job in JOBS}
        for name, command in airflow.SERVICES.items():
            self._processes.start(name, command, self._airflow_environment)
        return before

    def wait_for_dags(self) -> dict[str, Dag]:
        """Wait until Airflow has read the DAG file of every job; return the DAGs."""
        with self._terminal.stage("Scheduler, DAG processor and triggerer"):
            check = self._processes.check
            return {job: wait_for_dag(self.api, job, self._began, check) for job in JOBS}

    def run_job(self, job: str, dag: Dag, before: Before, conf: Mapping[str, Any] | None) -> Run:
        """Run a job once, wait for the end of the run, and print its result.

        Args:
            job: the name of the job.
            dag: its DAG as read since the scheduler started.
            before: its DAG and runs before the scheduler started.
            conf: the conf of a run to trigger; None for the scheduler's own run if one is due.

        Returns:
            The ended run.
        """
        check = self._processes.check
        began = time.monotonic()
        if conf is None:
            run = scheduled_or_triggered(self.api, job, before, dag, check)
        else:
            run = triggered_with(self.api, job, before, dag, conf)
        ended = follow(self.api, job, run, check, self._terminal)
        self._terminal.took(time.monotonic() - began, f"Run {run.run_id} of {job}: {ended.state}")
        if not ended.good:
            for line in failures(self.api, job, run):
                self._terminal.complain(f"    {line}")
        return ended

    def show(self, job: str, run: Run, *, top: int) -> None:
        """Print the results of a run from the history of this system."""
        command = [*CLI, "show-run", job, "--run-id", run.run_id, "--top", str(top)]
        self._processes.attach("show-run", command, self._jobs_environment())
        with suppress(ProcessFailedError):  # it printed its own error
            self._processes.wait("show-run")

    def serve(self) -> NoReturn:
        """Check the processes until this one is stopped."""
        while True:
            self._processes.check()
            time.sleep(1)

    def stop(self) -> None:
        """Stop everything, the servers last."""
        # Callbacks run last in, first out, even if another one raises.
        with self._terminal.stage("Stopping") as stage, ExitStack() as stack:
            stack.callback(self._postgres.stop)
            stack.callback(self._processes.forget, "valkey")
            stack.callback(self._valkey.stop)
            stack.callback(self._processes.stop)
            stack.callback(self.api.close)
            stage.label = "Everything is stopped"

    def _finish_metadata(self) -> None:
        self._processes.wait("airflow-migrate")
        self._migrated_by.write_text(AIRFLOW_VERSION)
        self._start_api_server()

    def _start_api_server(self) -> None:
        command = airflow.api_server(self._ports)
        self._processes.start("api-server", command, self._airflow_environment)

    def _migrate(self, adapter: str) -> None:
        with self._terminal.stage("Analytics tables") as stage:
            owner = self._postgres.uri("analytics", "analytics_owner")
            command = (*CLI, "migrate", "--adapter", adapter)
            self._processes.start("migrate", command, {OWNER_CONNECTION: owner})
            self._processes.wait("migrate")
            stage.label = f"Analytics tables, over the source contract by adapter {adapter}"

    def connections(self) -> dict[str, str]:
        """Return the environment variables through which the command line finds this demo."""
        return {**self._jobs_environment(), REDIS_CONNECTION: self._valkey.uri}

    def _jobs_environment(self) -> dict[str, str]:
        return {JOBS_CONNECTION: self._postgres.uri("analytics", "analytics_jobs")}

    def _settings(self, *, scheduled: bool) -> SettingsFile:
        settings = SettingsFile.read(ROOT / "airflow_settings.yaml")
        settings = settings.with_address(
            "analytics_db", str(self._postgres.socket_directory), None
        ).with_address("analytics_redis", "127.0.0.1", self._valkey.port)
        for job in JOBS:
            if scheduled:
                # The demo's first run is of the last interval: its deadline must not have passed.
                settings = settings.with_setting(job, "deadline_minutes", 2 * 24 * 60)
            else:
                settings = settings.with_setting(job, "enabled", False)
        return settings


def run(
    profile: Profile,
    purchases: Purchases | None,
    *,
    scale: float,
    serve: bool,
    run_jobs: bool,
    terminal: Terminal,
) -> int:
    """Start a demo, run every job, and serve its UI.

    Args:
        profile: the profile.
        purchases: a file of purchases; None for the synthetic platform.
        scale: the size of the synthetic platform.
        serve: whether to serve the UI until stopped.
        run_jobs: whether to run the jobs.
        terminal: where progress is printed.

    Returns:
        The exit code.

    Raises:
        ProfileBusyError: another process runs this profile.
    """
    interrupts = Interrupts()
    with profile.locked():
        demo = Demo(profile, terminal, interrupts)
        green: bool | None = None
        try:
            with interrupts.armed():
                green = _start_and_run(demo, purchases, scale=scale, run_jobs=run_jobs)
                _print_summary(demo, terminal, purchases, green=green, serve=serve)
                if serve:
                    demo.serve()
        except Stopped as stopped:
            if green is None:
                return 128 + stopped.number
        except FAULTS as fault:
            terminal.complain(str(fault).strip())
            return 1
        finally:
            demo.stop()
    return 0 if green else 1


def _start_and_run(
    demo: Demo, purchases: Purchases | None, *, scale: float, run_jobs: bool
) -> bool:
    demo.start_servers()
    demo.start_airflow()
    conf = None
    if purchases is None:
        demo.load_platform(scale)
    else:
        as_of = demo.load_purchases(purchases)
        # Forced, because this as_of may be earlier than that of an existing result.
        conf = {"as_of": as_of.isoformat(), "force": True}
    before = demo.finish_airflow(scheduled=purchases is None)
    if not run_jobs:
        return True
    good = True
    for job, dag in demo.wait_for_dags().items():
        run = demo.run_job(job, dag, before[job], conf)
        has_top = purchases is not None and JOBS[job].top is not None
        demo.show(job, run, top=TOP if has_top else 0)
        good = good and run.good
    return good


def _print_summary(
    demo: Demo, terminal: Terminal, purchases: Purchases | None, *, green: bool, serve: bool
) -> None:
    up = f"make up DATA={purchases.file}" if purchases else "make up"
    terminal.say()
    verdict = "Done" if green else "A run failed. Ended"
    terminal.say(f"{verdict} in {terminal.seconds:.0f} s.", style="bold")
    terminal.say(f"Airflow UI  {demo.api.url}{'' if serve else f'  (served by `{up}`)'}")
    terminal.say(f"Login       {airflow.ADMIN}, password {demo.password}")
    if serve:
        terminal.say("Environment for the command line:", style="dim")
        for name, uri in demo.connections().items():
            terminal.say(f"  export {name}='{uri}'", style="dim")
        terminal.say("Ctrl-C stops everything.", style="dim")
