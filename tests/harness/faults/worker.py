"""A worker: a process of its own that does one try of a batch, as an Airflow task does."""

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
from venue_analytics.harness import Job, JobSettings
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.interrupts import Stopped
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.redis_server import RedisAddress

#: A process that has imported all this is forked: a worker begins within milliseconds.
FORKED = get_context("forkserver")
WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Order:
    """What a worker is to do, and how it reaches its servers."""

    database_uri: str
    redis_uri: str
    job: Job[Any]
    run: PlannedRun
    batch: Batch
    settings: JobSettings
    try_number: int
    lease: timedelta
    renew_every: timedelta

    def open_database(self) -> Callable[[], Any]:
        """Give what connects as the jobs do."""
        address = DatabaseAddress.parse(self.database_uri, name="the test's database")
        return partial(connect, address, lease_seconds=self.lease.total_seconds())

    def do(self, **options: Any) -> list[str]:
        """Do it in this process; gives the failures in words."""
        with RedisAddress.parse(self.redis_uri, name="the test's Redis").client() as client:
            failures = process_batch(
                self.open_database(),
                Leases(client, self.job.name, length=self.lease),
                self.job,
                self.run,
                self.batch,
                self.settings,
                try_number=self.try_number,
                renew_every=self.renew_every,
                **options,
            )
        return [str(failure) for failure in failures]


class Worker:
    """A process that does an order, once it is started."""

    def __init__(self, order: Order) -> None:
        self._answer, theirs = FORKED.Pipe(duplex=False)
        self._theirs = theirs
        self._process = FORKED.Process(target=_work, args=(order, theirs))

    def start(self) -> None:
        """Begin."""
        self._process.start()
        self._theirs.close()

    @property
    def is_alive(self) -> bool:
        """Whether its process is there."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it where it stands, and see that it does."""
        self._send(signal.SIGSTOP)
        process = psutil.Process(self._process.pid)
        while process.status() != psutil.STATUS_STOPPED:
            pass

    def wake(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def exit_code(self) -> int | None:
        """Wait for its end; -9 after SIGKILL."""
        self._process.join(WAIT_SECONDS)
        return self._process.exitcode

    def answer(self) -> list[str] | str:
        """Wait for its end; gives the failures in words, or `stopped`."""
        assert self._answer.poll(WAIT_SECONDS), "the worker gave no answer"
        answer = self._answer.recv()
        self._process.join(WAIT_SECONDS)
        return answer

    def clear_away(self) -> None:
        """End it, if it has not ended, and free what it held."""
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
