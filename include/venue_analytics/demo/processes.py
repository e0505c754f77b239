"""The processes of one demo: started, recorded, and ended with all that they have started."""

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
    """A process ended that should not have; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Recorded:
    """A process by its id and its start, which tells it from a later one with the same id."""

    name: str
    pid: int
    created: float


class Processes:
    """Runs commands in sessions of their own, so that Ctrl-C on the terminal is ours to answer.

    Args:
        record: the file that lists what runs, for whoever has to end it without us.
        logs: the directory of their logs.
        environment: of every command.
        interrupts: held while a process is started, so that none starts unrecorded.
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
            name: names the process and its log.
            command: the program and its arguments.
            environment: beyond that of every command.
        """
        with self._interrupts.held(), self.log(name).open("w") as log:
            self._spawn(name, command, environment, stdout=log.fileno(), stderr=subprocess.STDOUT)

    def attach(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        """Start a process that writes to our terminal."""
        with self._interrupts.held():
            return self._spawn(name, command, environment, stdout=None, stderr=None)

    def pipe(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        """Start a process whose standard output we read; its errors go to our terminal."""
        with self._interrupts.held():
            return self._spawn(name, command, environment, stdout=subprocess.PIPE, stderr=None)

    def record(self, name: str, pid: int) -> None:
        """Add a process that somebody else has started to what runs."""
        self._recorded.append(Recorded(name, pid, psutil.Process(pid).create_time()))
        self._write()

    def forget(self, name: str) -> None:
        """Take a process off the list again, when it has ended."""
        self._recorded = [process for process in self._recorded if process.name != name]
        self._write()

    def wait(self, name: str) -> None:
        """Wait until a process that does one thing has done it.

        Raises:
            ProcessFailedError: it failed.
        """
        code = self._running[name].wait()
        del self._running[name]
        self.forget(name)
        if code != 0:
            raise self._failed(name, code)

    def ended(self, name: str) -> bool:
        """Whether a process was started and has ended."""
        return name in self._running and self._running[name].poll() is not None

    def check(self) -> None:
        """See that nothing has ended by itself.

        Raises:
            ProcessFailedError: a process has.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                raise self._failed(name, process.returncode)

    def stop(self) -> None:
        """End everything that was started here, and everything that this has started."""
        mine = [process for process in self._recorded if process.name in self._running]
        end(mine, self._running.values())
        for name in self._running:
            self.forget(name)

    def log(self, name: str) -> Path:
        """Where a process writes."""
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
        if not lines:  # it has told the terminal itself
            return ProcessFailedError(f"{name} ended with code {code}")
        last = "\n".join(f"    {line}" for line in lines[-12:])
        return ProcessFailedError(f"{name} ended with code {code}; {log} ends:\n{last}")


def end_recorded(record: Path) -> int:
    """End what a supervisor that was killed has left; returns how many processes that were."""
    if not record.exists():
        return 0
    left = [Recorded(**entry) for entry in json.loads(record.read_text())]
    ended = end(left)
    record.unlink()
    return ended


def end(recorded: Iterable[Recorded], children: Iterable[subprocess.Popen[str]] = ()) -> int:
    """Ask the sessions of these processes to end, then make them; returns how many processes.

    A session outlives its leader: the leader's id is not given to another process while one of
    its session is there, so that its members are found by it. Only where the id belongs to a
    younger process is the session gone.
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
            # Children whose parent has gone: nobody waits for them to finish anything.
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
