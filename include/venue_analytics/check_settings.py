"""Check the jobs' settings, in Airflow or before they are saved there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from croniter import croniter
from rich.console import Console

from venue_analytics.database.printable import printable
from venue_analytics.harness import JobSettings, SettingsError, counted
from venue_analytics.harness.settings import read_settings, shown
from venue_analytics.jobs import JOBS

#: Airflow creates this pool itself.
DEFAULT_POOL = "default_pool"
#: Number of scheduled runs to print.
RUNS_SHOWN = 3
#: The timeout of one `airflow` command, which usually takes about two seconds.
AIRFLOW_TIMEOUT_SECONDS = 60

#: Returns the names of the existing pools, or raises SourceError.
Pools = Callable[[], Iterable[str]]


class SourceError(Exception):
    """The settings or pools cannot be read; the message says why in one line."""


@dataclass(frozen=True)
class Variable:
    """A job's Variable.

    Attributes:
        origin: where it was looked up, and whether it was found; for the output.
        text: its value; None if there is none, so that the defaults apply.
    """

    origin: str
    text: str | None


@dataclass(frozen=True)
class Checked:
    """The result of checking a job's settings.

    Attributes:
        faults: the faults, one line each.
        settings: the settings; None if they are invalid.
        unsure: what could not be checked, one line each.
    """

    faults: list[str]
    settings: JobSettings | None = None
    unsure: list[str] | None = None


def check_settings_command(console: Console, job: str | None, file: Path | None) -> int:
    """Check the settings of all jobs, or of one, and print the result.

    Args:
        console: where to print.
        job: a job's name; None means all, or the one that a JSON file is named after.
        file: an airflow_settings.yaml, or a JSON file of one job's settings; None means the
            settings in force: those in the environment, else in Airflow, else the defaults.

    Returns:
        The exit code: 1 if there are faults, else 0.
    """
    try:
        if job is not None and job not in JOBS:
            raise SourceError(f"job {shown(job)}: must be {', '.join(JOBS)}")
        variables, pools = _from_file(file, job) if file else _in_force(job)
    except SourceError as error:
        _print(console, f"fault: {error}", style="red")
        return 1
    found = {name: check(name, variable.text, pools) for name, variable in variables.items()}
    for name, checked in found.items():
        _print_job(console, name, variables[name].origin, checked)
    return int(any(checked.faults for checked in found.values()))


def check(job: str, text: str | None, pools: Pools) -> Checked:
    """Check the settings of one job.

    Args:
        job: the job's name.
        text: the value of its Variable; None if there is none.
        pools: called only if the settings name a pool other than the default.
    """
    try:
        settings: JobSettings = read_settings(JOBS[job].settings, text, name=f"Variable {job}")
    except SettingsError as error:
        return Checked(str(error).split("\n"))
    if settings.pool == DEFAULT_POOL:
        return Checked([], settings)
    try:
        there = sorted({DEFAULT_POOL, *pools()})
    except SourceError as error:
        return Checked([], settings, [f"pool {shown(settings.pool)} is not checked: {error}"])
    if settings.pool in there:
        return Checked([], settings)
    fault = (
        f"Variable {job}: pool = {shown(settings.pool)}: Airflow has no such pool; its tasks "
        f"would wait for ever; there are: {', '.join(there)}"
    )
    return Checked([fault], settings)


def next_runs(settings: JobSettings, after: datetime) -> list[datetime]:
    """Return the next moments of the schedule, in its own zone; none if it is off."""
    if not settings.enabled:
        return []
    moments = croniter(settings.cron, after.astimezone(ZoneInfo(settings.timezone)))
    return [moments.get_next(datetime) for _ in range(RUNS_SHOWN)]


# -- where settings come from


def _in_force(job: str | None) -> tuple[dict[str, Variable], Pools]:
    airflow = _Airflow()
    variables = {}
    for name in [job] if job else JOBS:
        key = f"AIRFLOW_VAR_{name.upper()}"
        if key in os.environ:
            variables[name] = Variable(f"from {key} in the environment", os.environ[key])
        elif not airflow.is_set_up:
            origin = f"defaults: no {key}, no Airflow set up here"
            variables[name] = Variable(origin, None)
        else:
            text = airflow.variable(name)
            origin = (
                "from Airflow" if text is not None else "defaults: Airflow has no such Variable"
            )
            variables[name] = Variable(origin, text)
    return variables, lambda: airflow.pools


class _Airflow:
    """The Airflow on this machine, queried through its own command line."""

    @cached_property
    def command(self) -> str | None:
        beside = Path(sys.executable).with_name("airflow")
        return str(beside) if beside.exists() else shutil.which("airflow")

    @cached_property
    def is_set_up(self) -> bool:
        # Without a configuration, the command would create a home with an empty database.
        home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
        configured = any(
            key.startswith("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN") for key in os.environ
        )
        return self.command is not None and (configured or (home / "airflow.cfg").exists())

    @cached_property
    def pools(self) -> list[str]:
        if not self.is_set_up:
            raise SourceError("no Airflow is set up here")
        ended = self._run("pools", "list", "--output", "json")
        try:
            return [pool["pool"] for pool in json.loads(ended.stdout)]
        except (ValueError, TypeError, KeyError):
            raise SourceError(f"Airflow cannot list its pools: {_reason(ended)}") from None

    def variable(self, name: str) -> str | None:
        # Without a database, Airflow reports every Variable as missing. Listing the pools fails
        # then, so list them first.
        _ = self.pools
        ended = self._run("variables", "get", name)
        if ended.returncode == 0:
            return ended.stdout.removesuffix("\n")
        if f"Variable {name} does not exist" in ended.stderr:
            return None
        raise SourceError(f"Airflow cannot read its Variable {name}: {_reason(ended)}")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.command), *arguments]
        try:
            return subprocess.run(  # noqa: S603 - Airflow's own command, with arguments from here
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=AIRFLOW_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            late = f"did not answer within {AIRFLOW_TIMEOUT_SECONDS} seconds"
            raise SourceError(f"Airflow {late}: airflow {' '.join(arguments)}") from None
        except OSError as error:
            raise SourceError(f"{command[0]}: {error.strerror}") from None


def _reason(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the line of a command's output that states the error."""
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    last = (errors or lines or [f"exit code {ended.returncode}"])[-1]
    return printable(last, 200)


def _from_file(file: Path, job: str | None) -> tuple[dict[str, Variable], Pools]:
    if file.suffix == ".json":
        name = job or file.stem
        if name not in JOBS:
            names = ", ".join(f"{known}.json" for known in JOBS)
            raise SourceError(f"file {shown(file.name)}: must be {names}, unless a job is named")
        airflow = _Airflow()
        return {name: Variable(f"from {file.name}", _text(file))}, lambda: airflow.pools
    if file.suffix in (".yaml", ".yml"):
        return _from_settings_file(file, job)
    raise SourceError(f"file {shown(file.name)}: must be .yaml, .yml or .json")


def _from_settings_file(file: Path, job: str | None) -> tuple[dict[str, Variable], Pools]:
    airflow = _yaml(file)
    texts = dict(_entries(airflow, "variables", "variable_name", file))
    pools = [name for name, _ in _entries(airflow, "pools", "pool_name", file)]
    variables = {}
    for name in [job] if job else JOBS:
        text = texts.get(name, {}).get("variable_value")
        if text is not None and not isinstance(text, str):
            raise SourceError(f"{file.name}: variable_value of {name} must be JSON in quotes")
        origin = f"from {file.name}" if text else f"defaults: {file.name} has no such Variable"
        variables[name] = Variable(origin, text)
    return variables, lambda: pools


def _yaml(file: Path) -> Mapping[str, Any]:
    try:
        import yaml  # here: it comes with Airflow, and only this kind of file needs it
    except ImportError:
        raise SourceError(f"{file.name}: reading YAML needs PyYAML: pip install pyyaml") from None
    text = _text(file)
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        fault = printable(" ".join(str(error).split()), 200)
        raise SourceError(f"{file.name} is not valid YAML: {fault}") from None
    airflow = values.get("airflow") if isinstance(values, dict) else None
    if not isinstance(airflow, dict):
        raise SourceError(f"{file.name}: must contain `airflow:` with `variables:` and `pools:`")
    return airflow


def _entries(
    airflow: Mapping[str, Any], kind: str, key: str, file: Path
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    entries = airflow.get(kind) or []
    if not isinstance(entries, list):
        raise SourceError(f"{file.name}: airflow.{kind} must be a list")
    seen = set()
    for place, entry in enumerate(entries):
        name = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise SourceError(f"{file.name}: airflow.{kind}, entry {place + 1}: must have a {key}")
        if name in seen:
            raise SourceError(f"{file.name}: airflow.{kind} has {shown(name)} twice")
        seen.add(name)
        yield name, entry


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SourceError(f"file {shown(str(file))}: is not text in UTF-8") from None
    except OSError as error:
        raise SourceError(f"file {shown(str(file))}: {error.strerror}") from None


# -- what is printed


def _print_job(console: Console, job: str, origin: str, checked: Checked) -> None:
    verdict = counted(len(checked.faults), "fault") if checked.faults else "ok"
    _print(console, f"{job}: {verdict} ({origin})", style="bold")
    for fault in checked.faults:
        _print(console, f"  fault: {fault}", style="red")
    for line in checked.unsure or []:
        _print(console, f"  {line}", style="yellow")
    if checked.settings is not None:
        for line in _described(checked.settings):
            _print(console, f"  {line}")


def _described(settings: JobSettings) -> Iterator[str]:
    values = settings.model_dump(mode="json")
    defaults = type(settings)().model_dump(mode="json")
    for name, value in values.items():
        if name != settings.UNIT.plural and value != defaults[name]:
            yield f"{name} = {shown(value)} (default {shown(defaults[name])})"
    if settings.overrides:
        fields = Counter(name for own in settings.overrides.values() for name in own)
        names = ", ".join(f"{name} ({count})" for name, count in sorted(fields.items()))
        yield f"overrides: {counted(len(settings.overrides), settings.UNIT)}: {names}"
    runs = next_runs(settings, datetime.now(UTC))
    yield from (f"next run {moment:%a %Y-%m-%d %H:%M %Z}" for moment in runs)
    if not runs:
        yield "no next run: the schedule is off"


def _print(console: Console, line: str, style: str | None = None) -> None:
    # soft_wrap keeps a fault on one line, which can be searched and copied
    console.print(line, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
