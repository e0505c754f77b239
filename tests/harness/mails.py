"""A job that sends mails: which are wanted, which were sent, and its own record of those.

A file stands for the outside world: it has a line for each mail that was sent. The payload has its
path.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from tests.harness.simple_venues import ARENA

from venue_analytics.harness import (
    Action,
    Effect,
    Job,
    PermanentError,
    TransientError,
    Unit,
    UnitResult,
    UnitRun,
    VenueSettings,
)

TABLES = """
CREATE TABLE wanted (
    tenant_id uuid, venue_id uuid, key text, payload jsonb, PRIMARY KEY (venue_id, key)
);
CREATE TABLE kept (
    tenant_id uuid, venue_id uuid, key text, PRIMARY KEY (venue_id, key)
);
GRANT SELECT, INSERT, DELETE ON wanted, kept TO analytics_jobs;
ALTER TABLE kept ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON kept USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
"""
WAIT_SECONDS = 20.0
Run = UnitRun[VenueSettings]


def due(run: Run) -> Iterator[Action]:
    """Yield the mails that a venue wants, whether they were sent or not."""
    rows = run.connection.execute(
        "SELECT key, payload FROM wanted WHERE venue_id = %s ORDER BY key", [run.unit.id]
    )
    for key, payload in rows.fetchall():
        yield Action(key, payload)


def send(action: Action) -> None:
    """Send a mail, or fail as its mood demands."""
    mood, outbox = action.payload["mood"], Path(action.payload["outbox"])
    if mood == "refused":
        raise PermanentError("no such address")
    if mood == "later":
        raise TransientError("the server is busy")
    with outbox.open("a") as file:
        file.write(f"{action.key}\n")
    if mood == "unknown":
        raise ValueError("the answer cannot be read")
    if mood == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    if mood == "waits":
        until = time.monotonic() + WAIT_SECONDS
        while not outbox.with_name("answer").exists():
            assert time.monotonic() < until, "no answer came"
            time.sleep(0.01)


def keep(connection: psycopg.Connection, unit: Unit, action: Action) -> None:
    """Record that a mail was sent; recording it twice would be an error."""
    connection.execute(
        "INSERT INTO kept VALUES (%s, %s, %s)", [unit.tenant_id, unit.id, action.key]
    )


def prepare(_: Run) -> None:
    """Do nothing before the mails are sent."""


def report(_: Run) -> UnitResult:
    """End well."""
    return UnitResult()


def remove(connection: psycopg.Connection, tenant_id: UUID, venue_id: UUID) -> int:
    """Delete the records of a venue."""
    return connection.execute(
        "DELETE FROM kept WHERE tenant_id = %s AND venue_id = %s", [tenant_id, venue_id]
    ).rowcount


def units_held(connection: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    """Return the venues of a tenant that have records."""
    rows = connection.execute(
        "SELECT DISTINCT venue_id FROM kept WHERE tenant_id = %s", [tenant_id]
    )
    return [venue_id for (venue_id,) in rows.fetchall()]


def mail_job(act: Callable[[Action], None] = send, **steps: Any) -> Job[VenueSettings]:
    """Return the job, with another way to send or with other steps."""
    steps = steps or {"prepare": prepare, "send": Effect(due, act, keep), "report": report}
    return Job("mails", VenueSettings, steps, remove, units_held)


MAILS = mail_job()


@dataclass
class Office:
    """The state of the database and of the outside world."""

    superuser: psycopg.Connection
    outbox: Path

    def want(self, *keys: str, mood: str = "plain", unit: Unit = ARENA) -> None:
        """Want mails to be sent; a mail that is already wanted gets the new mood."""
        for key in keys:
            payload = json.dumps({"mood": mood, "outbox": str(self.outbox)})
            self.superuser.execute(
                "INSERT INTO wanted VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (venue_id, key) DO UPDATE SET payload = excluded.payload",
                [unit.tenant_id, unit.id, key, payload],
            )

    def sent(self) -> list[str]:
        """Return the mails that were sent, in order."""
        return self.outbox.read_text().split() if self.outbox.exists() else []

    def answer(self) -> None:
        """Answer the process that waits."""
        self.outbox.with_name("answer").touch()

    def kept(self) -> list[str]:
        """Return the mails that the job has recorded as sent."""
        rows = self.superuser.execute("SELECT key FROM kept ORDER BY key").fetchall()
        return [key for (key,) in rows]

    def states(self) -> dict[str, str]:
        """Return the state of each action."""
        rows = self.superuser.execute("SELECT key, state FROM jobs.action ORDER BY key").fetchall()
        return dict(rows)

    def letters(self) -> dict[str, str]:
        """Return the state of each letter of an action."""
        rows = self.superuser.execute(
            "SELECT key, state FROM jobs.dead_letter WHERE kind = 'action' ORDER BY id"
        ).fetchall()
        return dict(rows)
