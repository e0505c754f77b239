"""Stop demos from another terminal, including what a killed supervisor left behind."""

import os
import shutil
import signal
import time
from contextlib import suppress

from venue_analytics.demo.processes import end_recorded
from venue_analytics.demo.profile import STATE, Profile, ProfileBusyError, profiles
from venue_analytics.demo.servers import PostgresServer
from venue_analytics.demo.terminal import Terminal

SUPERVISOR_SECONDS = 90
POLL_SECONDS = 0.2


def down(terminal: Terminal) -> None:
    """Stop every demo of this clone.

    Raises:
        ProfileBusyError: a supervisor did not end within 90 seconds of SIGTERM.
    """
    for profile in profiles():
        with terminal.stage(f"Stopping {profile.name}") as stage:
            found = _end_supervisor(profile)
            with profile.locked():
                found |= end_recorded(profile.processes) > 0
                postgres = PostgresServer(profile.postgres)
                found |= postgres.running
                postgres.stop()
            stage.label = f"{profile.name}: {'stopped' if found else 'was not running'}"


def clean(terminal: Terminal) -> None:
    """Stop every demo and remove its data."""
    down(terminal)
    shutil.rmtree(STATE, ignore_errors=not STATE.exists())


def _end_supervisor(profile: Profile) -> bool:
    deadline = time.monotonic() + SUPERVISOR_SECONDS
    signalled: int | None = None
    while True:
        try:
            with profile.locked():
                return signalled is not None
        except ProfileBusyError as busy:
            if time.monotonic() > deadline:
                raise
            if busy.pid and busy.pid != signalled:
                with suppress(ProcessLookupError):
                    os.kill(busy.pid, signal.SIGTERM)
                signalled = busy.pid
            time.sleep(POLL_SECONDS)
