"""Turn Ctrl-C, SIGTERM and SIGHUP into one exception, raised once and only where it is safe."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Attributes:
        number: the first signal received.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Interrupts:
    """Handles the signals for the rest of the process; outside `armed` they are only recorded."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._armed = False
        self._held = 0
        for number in SIGNALS:
            # A signal ignored from the start (nohup, a background job) stays ignored, but by a
            # handler: children would inherit SIG_IGN, and SIGINT could not end them.
            ignored = signal.getsignal(number) is signal.SIG_IGN
            signal.signal(number, _ignore if ignored else self._note)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Raise `Stopped` on the first signal within this context; ignore later ones."""
        self._armed = True
        try:
            self._raise()
            yield
        finally:
            self._armed = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer `Stopped` to the end of this context, for steps that must not be interrupted."""
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
