"""Effect steps: act outside the database, never twice, and forget nothing.

An action is claimed in a transaction that holds the fence, performed outside any transaction, and
recorded. Recording compares and sets the claim, without the fence: what is known to be done must
not be lost to a lost lease. A claim whose process died says nothing about the action: it becomes a
dead letter, and only a person has the action performed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any
from uuid import UUID

import psycopg

from venue_analytics.database.statements import statement
from venue_analytics.harness import dead_letters, history
from venue_analytics.harness.attempts import UnitAttempt
from venue_analytics.harness.errors import AnalyticsError, PermanentError, TransientError
from venue_analytics.harness.failures import describe
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.job import Action, Effect
from venue_analytics.harness.tenant import set_tenant
from venue_analytics.harness.unit import Unit

log = logging.getLogger(__name__)


class UnknownEndError(AnalyticsError):
    """A process died, or was stopped, between claiming an action and recording it."""


def due(
    connection: psycopg.Connection, attempt: UnitAttempt, actions: Sequence[Action]
) -> list[Action]:
    """Return the actions that nobody has claimed; write letters for claims that nobody will end.

    Called in the first transaction of an effect step.
    """
    by_key = {action.key: action for action in actions}
    names = {**_names(attempt), "keys": list(by_key)}
    known = {key for (key,) in connection.execute(statement(__package__, "known_actions"), names)}
    write_abandoned(connection, attempt.run.job, attempt.unit.id, by_key)
    return [action for key, action in by_key.items() if key not in known]


def perform(
    connection: psycopg.Connection,
    attempt: UnitAttempt,
    effect: Effect[Any],
    actions: Sequence[Action],
    entered: Callable[[], AbstractContextManager[None]],
) -> None:
    """Claim, perform and record each action; one that fails stops no other.

    Args:
        connection: not in a transaction.
        attempt: of the unit.
        effect: the step.
        actions: as `due` returned them.
        entered: opens a transaction that holds the unit's fence.

    Raises:
        TransientError: some actions were certainly not performed, and may succeed later.
    """
    failed: list[TransientError] = []
    for action in actions:
        names = {**_names(attempt), "key": action.key}
        with entered():
            claimed = connection.execute(statement(__package__, "claim_action"), names).fetchone()
        if claimed is None:
            continue
        try:
            effect.act(action)
        except TransientError as error:
            connection.execute(statement(__package__, "release_action"), names)
            failed.append(error)
        except Exception as error:  # noqa: BLE001  its letter reports it, and the others go on
            state = "refused" if isinstance(error, PermanentError) else "unknown"
            with connection.transaction():
                set_tenant(connection, attempt.unit.tenant_id)
                _end(connection, attempt, action, state, error)
        else:
            with connection.transaction():
                set_tenant(connection, attempt.unit.tenant_id)
                if connection.execute(statement(__package__, "record_action"), names).fetchone():
                    connection.execute(statement(__package__, "answer_letter"), names)
                    effect.record(connection, attempt.unit, action)
                else:
                    log.warning(
                        "%s: action %s was performed, and a person has had it performed again",
                        attempt.unit.name,
                        action.key,
                    )
    if failed:
        raise TransientError(
            f"{len(failed)} of {len(actions)} actions are still to be done: {describe(failed[0])}",
            unit_id=attempt.unit.id,
        )


def write_abandoned(
    connection: psycopg.Connection,
    job: str,
    unit_id: UUID | None = None,
    by_key: Mapping[str, Action] = MappingProxyType({}),
) -> None:
    """Write letters for claims that nobody will end, of one unit or of all; in a transaction.

    Their process is dead, was stopped, or has lost its lease. One that lives on may still record
    its action: that resolves the letter.

    Args:
        connection: in a transaction.
        job: the job's name.
        unit_id: the unit; None means all.
        by_key: the actions of the unit whose payloads are known.
    """
    names = {"job": job, "unit_id": unit_id}
    abandoned = connection.execute(statement(__package__, "abandon_actions"), names).fetchall()
    for key, plan, unit, tenant_id, name in sorted(abandoned):
        set_tenant(connection, tenant_id)
        error = UnknownEndError(
            "its process died or was stopped after it claimed the action and before it recorded "
            "it: nobody knows whether it was done. Replay it to do it again, or discard it"
        )
        run = history.load_plan(connection, plan)
        action = by_key.get(key, Action(key, {}))
        _write(connection, run, Unit(unit, tenant_id, name), action, error)


def _end(
    connection: psycopg.Connection,
    attempt: UnitAttempt,
    action: Action,
    state: str,
    error: Exception,
) -> None:
    names = {**_names(attempt), "key": action.key, "state": state}
    ended = connection.execute(statement(__package__, "end_action"), names).fetchone()
    if ended is not None:  # else somebody took this process for dead, and has written a letter
        _write(connection, attempt.run, attempt.unit, action, error)


def _write(
    connection: psycopg.Connection, run: PlannedRun, unit: Unit, action: Action, error: Exception
) -> None:
    dead_letters.write_item(connection, run, unit, action.key, action.payload, error, kind="action")


def _names(attempt: UnitAttempt) -> dict[str, Any]:
    return {
        "job": attempt.run.job,
        "unit_id": attempt.unit.id,
        "run": attempt.run.id,
        "token": attempt.token,
    }
