"""Ctrl-C, SIGTERM and SIGHUP as one exception, raised once and only where it does no harm."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """Somebody asked this process to end.

    Attributes:
        number: the first signal that came.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Interrupts:
    """Takes the signals over for the rest of the process; outside `armed` they are only noted."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._armed = False
        self._held = 0
        for number in SIGNALS:
            # What is ignored from the start (nohup, a job in the background) is ignored still, but
            # by a handler: children would inherit SIG_IGN, and could not be ended by SIGINT.
            ignored = signal.getsignal(number) is signal.SIG_IGN
            signal.signal(number, _ignore if ignored else self._note)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Within, the first signal raises `Stopped`, and the ones after it nothing."""
        self._armed = True
        try:
            self._raise()
            yield
        finally:
            self._armed = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, `Stopped` waits until the end: for steps that must not be left half done."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._raise()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._received = self._received or number
        self._raise()

    def _raise(self) -> None:
        if self._received is not None and self._armed and not self._held:
            self._armed = False
            raise Stopped(self._received)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass
