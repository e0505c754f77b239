"""Start and record the processes of one demo, and end them with all their descendants."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from venue_analytics.demo.interrupts import Interrupts
from venue_analytics.demo.profile import write_private

GRACE_SECONDS = 10
ORPHAN_SECONDS = 2
POLL_SECONDS = 0.1


class ProcessFailedError(RuntimeError):
    """A process failed or ended unexpectedly; the message includes the last lines of its log."""


@dataclass(frozen=True)
class Recorded:
    """A process, identified by its id and start time, because ids are reused."""

    name: str
    pid: int
    created: float


class Processes:
    """Runs commands in sessions of their own, so that Ctrl-C reaches only the supervisor.

    Args:
        record: the file that lists the running processes, so that `make down` or the next start
            can end them if the supervisor was killed.
        logs: the directory of the logs.
        environment: the environment of every command.
        interrupts: held while a process starts, so that none starts unrecorded.
    """

    def __init__(
        self,
        record: Path,
        logs: Path,
        environment: Mapping[str, str],
        interrupts: Interrupts,
    ) -> None:
        self._record = record
        self._logs = logs
        self._environment = environment
        self._interrupts = interrupts
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._recorded: list[Recorded] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a process whose output goes to its log.

        Args:
            name: the name of the process and of its log.
            command: the program and its arguments.
            environment: variables in addition to those of every command.
        """
        with self._interrupts.held(), self.log(name).open("w") as log:
            self._spawn(name, command, environment, stdout=log.fileno(), stderr=subprocess.STDOUT)

    def attach(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        """Start a process that writes to this terminal."""
        with self._interrupts.held():
            return self._spawn(name, command, environment, stdout=None, stderr=None)

    def pipe(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        """Start a process whose standard output is a pipe; its errors go to this terminal."""
        with self._interrupts.held():
            return self._spawn(name, command, environment, stdout=subprocess.PIPE, stderr=None)

    def record(self, name: str, pid: int) -> None:
        """Add a process that was started elsewhere to the record."""
        self._recorded.append(Recorded(name, pid, psutil.Process(pid).create_time()))
        self._write()

    def forget(self, name: str) -> None:
        """Remove an ended process from the record."""
        self._recorded = [process for process in self._recorded if process.name != name]
        self._write()

    def wait(self, name: str) -> None:
        """Wait until a process ends.

        Raises:
            ProcessFailedError: it failed.
        """
        code = self._running[name].wait()
        del self._running[name]
        self.forget(name)
        if code != 0:
            raise self._failed(name, code)

    def ended(self, name: str) -> bool:
        """Return whether a process was started and has ended."""
        return name in self._running and self._running[name].poll() is not None

    def check(self) -> None:
        """Check that every process is still running.

        Raises:
            ProcessFailedError: a process has ended.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                raise self._failed(name, process.returncode)

    def stop(self) -> None:
        """End every process started here, with its descendants."""
        mine = [process for process in self._recorded if process.name in self._running]
        end(mine, self._running.values())
        for name in self._running:
            self.forget(name)

    def log(self, name: str) -> Path:
        """Return the log of a process."""
        return self._logs / f"{name}.log"

    def _spawn(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        stdout: int | None,
        stderr: int | None,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603
            command,
            env={**self._environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        self._running[name] = process
        self.record(name, process.pid)
        return process

    def _write(self) -> None:
        if self._recorded:
            write_private(self._record, json.dumps([asdict(one) for one in self._recorded]))
        else:
            self._record.unlink(missing_ok=True)

    def _failed(self, name: str, code: int) -> ProcessFailedError:
        log = self.log(name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        if not lines:  # it wrote to the terminal
            return ProcessFailedError(f"{name} ended with code {code}")
        last = "\n".join(f"    {line}" for line in lines[-12:])
        return ProcessFailedError(f"{name} ended with code {code}; the end of {log}:\n{last}")


def end_recorded(record: Path) -> int:
    """End the processes that a killed supervisor left behind; return their number."""
    if not record.exists():
        return 0
    left = [Recorded(**entry) for entry in json.loads(record.read_text())]
    ended = end(left)
    record.unlink()
    return ended


def end(recorded: Iterable[Recorded], children: Iterable[subprocess.Popen[str]] = ()) -> int:
    """Interrupt the sessions of these processes, then kill them; return the number of processes.

    A session outlives its leader. While it has members, the leader's id is not reused, so they are
    found by that id. If a younger process has the id, the session has ended.
    """
    sessions = {process.pid: process for process in recorded if not _reused(process)}
    members = first = _members(sessions)
    for pid in sessions.keys() & members:
        with suppress(ProcessLookupError):
            # Airflow's services end themselves and their children on SIGINT, not on SIGTERM.
            os.killpg(pid, signal.SIGINT)
    deadline = time.monotonic() + GRACE_SECONDS
    while members and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        for child in children:
            child.poll()
        members = _members(sessions)
        if not sessions.keys() & members:
            # Only orphans are left: nothing waits for their work, so they get less time.
            deadline = min(deadline, time.monotonic() + ORPHAN_SECONDS)
    while members:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
        for child in children:
            child.poll()
        members = _members(sessions)
    return len(first)


def _reused(process: Recorded) -> bool:
    try:
        return psutil.Process(process.pid).create_time() != process.created
    except psutil.NoSuchProcess:
        return False


def _members(sessions: Mapping[int, Recorded]) -> set[int]:
    members = set()
    for pid in psutil.pids():
        try:
            if os.getsid(pid) in sessions and psutil.Process(pid).status() != "zombie":
                members.add(pid)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return members
