"""Effect steps: act outside the database, never twice, and forget nothing.

An action is claimed in a transaction that holds the fence, performed outside any transaction, and
recorded. Recording updates the claim only if it is still ours, without the fence: what is known to
be done must not be lost to a lost lease. A claim whose process died does not show whether the
action was performed: it becomes a dead letter, and only a person has the action performed again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

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
    """Return the actions that nobody has claimed; write letters for abandoned claims.

    Called in the first transaction of an effect step.
    """
    by_key = {action.key: action for action in actions}
    for action in actions:
        try:
            json.dumps(dict(action.payload))
        except TypeError as error:
            raise PermanentError(
                f"action {action.key}: its payload must be JSON: {error}"
            ) from None
    names = {**_names(attempt), "keys": list(by_key)}
    known = {key for (key,) in connection.execute(statement(__package__, "known_actions"), names)}
    write_abandoned(connection, attempt.run.job, attempt.unit, by_key)
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
            try:
                with connection.transaction():
                    if _is_recorded(connection, attempt, action):
                        effect.record(connection, attempt.unit, action)
            except Exception as error:  # noqa: BLE001  it is done, whatever its record meets
                with connection.transaction():
                    if _is_recorded(connection, attempt, action):
                        _write(connection, attempt.run, attempt.unit, action, error)
    if failed:
        raise TransientError(
            f"{len(failed)} of {len(actions)} actions could not be performed yet: "
            f"{describe(failed[0])}",
            unit_id=attempt.unit.id,
        )


def _is_recorded(connection: psycopg.Connection, attempt: UnitAttempt, action: Action) -> bool:
    """Record that an action is done; return False if its claim was replayed meanwhile."""
    set_tenant(connection, attempt.unit.tenant_id)
    names = {**_names(attempt), "key": action.key}
    if connection.execute(statement(__package__, "record_action"), names).fetchone() is None:
        log.warning(
            "%s: action %s was performed, but meanwhile somebody replayed it: it may have been "
            "performed twice",
            attempt.unit.name,
            action.key,
        )
        return False
    connection.execute(statement(__package__, "answer_letter"), names)
    return True


def write_abandoned(
    connection: psycopg.Connection,
    job: str,
    of: Unit | None = None,
    by_key: Mapping[str, Action] = MappingProxyType({}),
) -> None:
    """Write letters for abandoned claims of one unit or of all; in a transaction.

    Their process is dead, was stopped, or has lost its lease. One that lives on may still record
    its action: that resolves the letter.

    Args:
        connection: in a transaction.
        job: the job's name.
        of: the unit; None means all.
        by_key: the actions of the unit whose payloads are known.
    """
    names = {"job": job, "unit_id": of and of.id}
    abandoned = connection.execute(statement(__package__, "abandon_actions"), names).fetchall()
    for key, plan, unit, tenant_id, name in sorted(abandoned):
        set_tenant(connection, tenant_id)
        error = UnknownEndError(
            "its process died or was stopped after it claimed the action and before it recorded "
            "it: nobody knows whether it was done. Replay it to do it again, or discard it"
        )
        run = history.load_plan(connection, plan)
        action = Action(key, {})
        if of is not None and of.tenant_id == tenant_id:  # what it is for another tenant is theirs
            action = by_key.get(key, action)
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
    if ended is not None:  # else somebody assumed this process was dead, and has written a letter
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
