"""The demo's output: a line with the duration of each stage, and a bar while a job runs."""

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
        """Discard further output; by default rich would end the process."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Stage:
    """A running stage; its label may be replaced until it ends."""

    def __init__(self, label: str) -> None:
        self.label = label


class Terminal:
    """Writes to standard output: with colours and animation on a terminal, else in plain lines.

    Output to a terminal that was closed is discarded without an error.
    """

    def __init__(self) -> None:
        self._console = _Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    @property
    def interactive(self) -> bool:
        """Whether input and output are a terminal, so that a user can press Ctrl-C."""
        return sys.stdin.isatty() and sys.stdout.isatty()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line verbatim."""
        with suppress(OSError):
            self._console.print(escape(text), style=style)

    def complain(self, text: str) -> None:
        """Print an error."""
        self.say(text, style="red")

    def took(self, seconds: float, label: str) -> None:
        """Print a finished stage with its duration."""
        with suppress(OSError):
            self._console.print(f"[dim]{seconds:6.1f} s[/dim]  {escape(label)}")

    @contextmanager
    def stage(self, label: str) -> Iterator[Stage]:
        """Show a stage while it runs, and print its duration when it ends."""
        stage = Stage(label)
        began = time.monotonic()
        with self._moving(f"{label} …"):
            yield stage
        self.took(time.monotonic() - began, stage.label)

    @contextmanager
    def bar(self) -> Iterator["Bar"]:
        """Show a progress bar."""
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
    """A progress bar on a terminal; elsewhere, a line per finished item."""

    def __init__(self, terminal: Terminal, progress: Progress) -> None:
        self._terminal = terminal
        self._progress = progress
        self._task = progress.add_task("planning", total=None)

    def show(self, done: int, total: int, newest: str, seconds: float) -> None:
        """Update the bar.

        Args:
            done: the number of finished items.
            total: the number of all items.
            newest: the item that finished last.
            seconds: its duration.
        """
        if self._progress.disable:
            self._terminal.took(seconds, f"  {newest}")
        self._progress.update(self._task, completed=done, total=total, description=escape(newest))
