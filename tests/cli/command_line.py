"""Runs `python -m venue_analytics …` as people and programs do."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
from tests.databases import Database

from venue_analytics.__main__ import main
from venue_analytics.demo.airflow import plain_environment
from venue_analytics.demo.servers import ValkeyServer

CONNECTION = "AIRFLOW_CONN_ANALYTICS_DB"
OWNER_CONNECTION = "AIRFLOW_CONN_ANALYTICS_DB_OWNER"
REDIS_CONNECTION = "AIRFLOW_CONN_ANALYTICS_REDIS"


@dataclass(frozen=True)
class Ended:
    """The output of a command, and its exit code."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs commands in an empty folder, on one database, as the jobs' role."""

    def __init__(
        self, folder: Path, database: Database | None, valkey: ValkeyServer | None = None
    ) -> None:
        self.folder = folder
        self.environment = plain_environment()
        if database is not None:
            self.environment[CONNECTION] = database.uri("analytics_jobs")
        if valkey is not None:
            self.environment[REDIS_CONNECTION] = valkey.uri

    def __call__(self, *arguments: str, **environment: str) -> Ended:
        """Run a command in this process, without a terminal, which saves its start-up time."""
        out, err = StringIO(), StringIO()
        logger = logging.getLogger("venue_analytics")
        level = logger.level
        try:
            with (
                chdir(self.folder),
                patch.dict(os.environ, self.environment | environment, clear=True),
                patch.object(sys, "argv", ["venue_analytics", *arguments]),
                redirect_stdout(out),
                redirect_stderr(err),
                pytest.raises(SystemExit) as ended,
            ):
                main()
        finally:
            # main silences the logger; other tests check what is logged
            logger.setLevel(level)
        return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def as_a_process(self, *arguments: str, **environment: str) -> Ended:
        """Run a command as people do, without a terminal."""
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate()
        return Ended(process.returncode, out, err)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command as people do, without a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "venue_analytics", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def on_terminal(self, *arguments: str, columns: int = 120) -> str:
        """Run a command on its own terminal; return everything that it shows there."""
        ours, its = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "venue_analytics", *arguments],
            cwd=self.folder,
            env=self.environment | {"TERM": "xterm-256color", "COLUMNS": str(columns)},
            stdin=its,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        shown = b""
        # On Linux, the end of a terminal is EIO.
        with suppress(OSError):
            while chunk := os.read(ours, 65_536):
                shown += chunk
        os.close(ours)
        process.wait()
        return shown.decode()


def refusal(ended: Ended) -> str:
    """Return the single error line of a command."""
    assert ended.code == 1
    assert "Traceback" not in ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("Error: ")
    return line


def line_of(ended: Ended, beginning: str) -> list[str]:
    """Return the words of the only line that begins like this."""
    (line,) = [line for line in ended.out.splitlines() if line.startswith(beginning)]
    return line.split()
