"""Being stopped by a signal, Airflow's timeout or Ctrl-C, without leaving anything half-written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psycopg

#: Airflow kills five seconds after SIGTERM. What the server has not cancelled by then, it cancels
#: itself within a second of the client's death.
CANCEL_SECONDS = 2.0


class Stopped(BaseException):
    """The process received SIGTERM."""


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Raise `Stopped` in the main thread on SIGTERM, even inside a call that waits.

    Airflow's own handler raises nothing: without this, `finally` would not run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # once: a second signal must not interrupt the clean-up
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped("stopped by SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def cancelled_when_stopped(connection: psycopg.Connection) -> Iterator[None]:
    """Cancel the running query and close the connection when something stops the block.

    psycopg does so by itself for KeyboardInterrupt alone: after any other BaseException the query
    would run on, its locks held.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException:
        if not connection.closed:
            try:
                connection.cancel_safe(timeout=CANCEL_SECONDS)
            except psycopg.Error:
                pass  # the server is gone, or does not answer: closing ends it
            finally:
                connection.close()
        raise
