"""Being stopped: by a signal, Airflow's timeout, Ctrl-C. Nothing half-written stays."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psycopg

#: Airflow kills five seconds after SIGTERM: what the server has not cancelled by then, it does by
#: itself within a second of the client's death.
CANCEL_SECONDS = 2.0


class Stopped(BaseException):
    """The process was told to end (SIGTERM)."""


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Have SIGTERM raise `Stopped` in the main thread, inside whatever it waits for.

    Airflow's own handler raises nothing: without this, `finally` would not run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # once: a second one must not interrupt the tidying up
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped("stopped by SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def cancelled_when_stopped(connection: psycopg.Connection) -> Iterator[None]:
    """Cancel what the server is at and close the connection when something stops the block.

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
