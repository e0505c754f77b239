"""What a person sees: a line for each stage with its seconds, and a bar while venues are scored."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on silently: rich would end the process in the middle of its work."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Stage:
    """A stage while it goes on; its label may become more exact until it is over."""

    def __init__(self, label: str) -> None:
        self.label = label


class Terminal:
    """Writes to standard output: with colours and movement on a terminal, in plain lines elsewhere.

    A terminal that has gone away (its window was closed) is written to in vain, and silently.
    """

    def __init__(self) -> None:
        self._console = _Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    @property
    def interactive(self) -> bool:
        """Whether a person sits there who can press Ctrl-C."""
        return sys.stdin.isatty() and sys.stdout.isatty()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line as it is."""
        with suppress(OSError):
            self._console.print(escape(text), style=style)

    def complain(self, text: str) -> None:
        """Print what went wrong."""
        self.say(text, style="red")

    def took(self, seconds: float, label: str) -> None:
        """Tell what is over, and how long it took."""
        with suppress(OSError):
            self._console.print(f"[dim]{seconds:6.1f} s[/dim]  {escape(label)}")

    @contextmanager
    def stage(self, label: str) -> Iterator[Stage]:
        """Show that something goes on, and when it is over how long it took."""
        stage = Stage(label)
        began = time.monotonic()
        with self._moving(f"{label} …"):
            yield stage
        self.took(time.monotonic() - began, stage.label)

    @contextmanager
    def bar(self) -> Iterator["Bar"]:
        """Show how many of something are done."""
        progress = Progress(
            TextColumn(" " * 8),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with progress:
            yield Bar(self, progress)

    @contextmanager
    def _moving(self, text: str) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(escape(text), spinner="dots"):
            yield


class Bar:
    """A bar on a terminal, a line for each thing done elsewhere."""

    def __init__(self, terminal: Terminal, progress: Progress) -> None:
        self._terminal = terminal
        self._progress = progress
        self._task = progress.add_task("planning", total=None)

    def show(self, done: int, total: int, newest: str, seconds: float) -> None:
        """Move on.

        Args:
            done: how many are done.
            total: of how many.
            newest: the one that was done last.
            seconds: how long that took.
        """
        if self._progress.disable:
            self._terminal.took(seconds, f"  {newest}")
        self._progress.update(self._task, completed=done, total=total, description=escape(newest))
