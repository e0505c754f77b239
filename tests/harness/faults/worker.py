"""A worker: a separate process that runs one try of a batch, like an Airflow task."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import psutil

from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.harness import Job, VenueSettings
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.interrupts import Stopped
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.redis_server import RedisAddress

#: Forks a process that has already imported all this, so a worker starts within milliseconds.
FORKED = get_context("forkserver")
WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Order:
    """A worker's task, and the addresses of its servers."""

    database_uri: str
    redis_uri: str
    job: Job[Any]
    run: PlannedRun
    batch: Batch
    settings: VenueSettings
    try_number: int
    lease: timedelta
    renew_every: timedelta
    clear_number: int = 0

    def open_database(self) -> Callable[[], Any]:
        """Return a function that connects as the jobs do."""
        address = DatabaseAddress.parse(self.database_uri, name="the test's database")
        return partial(connect, address, lease_seconds=self.lease.total_seconds())

    def do(self) -> list[str]:
        """Run the order in this process; return the failures as text."""
        with RedisAddress.parse(self.redis_uri, name="the test's Redis").client() as client:
            failures = process_batch(
                self.open_database(),
                Leases(client, self.job.name, length=self.lease),
                self.job,
                BatchTry.of(
                    self.job,
                    self.run,
                    self.batch,
                    try_number=self.try_number,
                    clear_number=self.clear_number,
                ),
                renew_every=self.renew_every,
            )
        return [str(failure) for failure in failures]


class Worker:
    """A process that runs an order once it is started."""

    def __init__(self, order: Order) -> None:
        self._answer, theirs = FORKED.Pipe(duplex=False)
        self._theirs = theirs
        self._process = FORKED.Process(target=_work, args=(order, theirs))

    def start(self) -> None:
        """Start the process."""
        self._process.start()
        self._theirs.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process is alive."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def pause(self) -> None:
        """Suspend the process, and wait until it is suspended."""
        self._send(signal.SIGSTOP)
        process = psutil.Process(self._process.pid)
        while process.status() != psutil.STATUS_STOPPED:
            pass

    def wake(self) -> None:
        """Resume the process."""
        self._send(signal.SIGCONT)

    def exit_code(self) -> int | None:
        """Wait until the process ends; return its exit code, -9 after SIGKILL."""
        self._process.join(WAIT_SECONDS)
        return self._process.exitcode

    def answer(self) -> list[str] | str:
        """Wait until the process ends; return the failures as text, or `stopped`."""
        assert self._answer.poll(WAIT_SECONDS), "the worker sent no answer"
        answer = self._answer.recv()
        self._process.join(WAIT_SECONDS)
        return answer

    def clear_away(self) -> None:
        """Kill the process if it is still alive, and close its pipes."""
        if self._process.pid is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()
        for end in (self._answer, self._theirs):
            end.close()

    def _send(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)


def _work(order: Order, answer: Connection) -> None:
    try:
        answer.send(order.do())
    except Stopped:
        answer.send("stopped")
