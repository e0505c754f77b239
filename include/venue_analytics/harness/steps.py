"""A step of a group of units: one transaction, which resumes where their work stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import psycopg

from venue_analytics.harness import dead_letters
from venue_analytics.harness.attempts import (
    TAKEN_OVER,
    UnitAttempt,
    begin,
    close,
    end_step,
    enter,
    open_rows,
    standing,
)
from venue_analytics.harness.effects import due, perform
from venue_analytics.harness.errors import LeaseLostError, PermanentError
from venue_analytics.harness.history import DRY_RUN
from venue_analytics.harness.interrupts import cancelled_when_stopped
from venue_analytics.harness.job import (
    Action,
    Continue,
    Effect,
    Grouped,
    GroupRun,
    Job,
    Outcome,
    UnitResult,
    UnitRun,
)
from venue_analytics.harness.standing import Checkpoint
from venue_analytics.harness.tenant import set_tenant, snapshot_transaction
from venue_analytics.harness.unit import Unit


@dataclass
class Committed:
    """The outcome of one transaction for a group.

    Attributes:
        ended: attempts that have ended well, each with its result.
        ongoing: attempts that have done a step or a piece of it, each with where to go on.
        lost: attempts whose unit another attempt has taken over, each with the error.
        apart: attempts that were not in it, each to be processed by itself: they are done already,
            or are at another step.
        to_perform: an effect step, and the actions that its one attempt is to perform.
    """

    ended: list[tuple[UnitAttempt, UnitResult]] = field(default_factory=list)
    ongoing: list[tuple[UnitAttempt, Checkpoint]] = field(default_factory=list)
    lost: list[tuple[UnitAttempt, LeaseLostError]] = field(default_factory=list)
    apart: list[UnitAttempt] = field(default_factory=list)
    to_perform: tuple[Effect[Any], list[Action]] | None = None


def takes_groups(job: Job[Any], progress: Checkpoint | None) -> bool:
    """Return whether the next step of a job may work on several units at once."""
    done = () if progress is None else progress.done
    return isinstance(job.steps[job.next_step(done)], Grouped)


def do_step(
    connection: psycopg.Connection,
    job: Job[Any],
    group: Sequence[UnitAttempt],
    check_lease: Callable[[UnitAttempt], None],
    limit: timedelta | None = None,
) -> Committed:
    """Do the next step of a group in one transaction; for an effect step, in several.

    The transaction holds the fences, and commits the step's data with the checkpoints; that of the
    last step closes the attempts in history instead.

    Args:
        connection: not in a transaction.
        job: the job.
        group: units of one tenant under the same settings; tokens are drawn, rows opened.
        check_lease: raises LeaseLostError when no further transaction may be opened on a unit.
        limit: how long a statement may take; None means the session's limit.
    """
    done = Committed()
    members = []
    for attempt in group:
        try:
            check_lease(attempt)
        except LeaseLostError as error:
            done.lost.append((attempt, error))
        else:
            members.append(attempt)
    if members:
        with snapshot_transaction(connection), cancelled_when_stopped(connection):
            stale = enter(connection, members, limit)
            lost = [attempt for attempt in members if attempt.unit.id in stale]
            done.lost += [(attempt, LeaseLostError(TAKEN_OVER)) for attempt in lost]
            if members := [a for a in members if a.unit.id not in stale]:
                _work(connection, job, members, done)
    for attempt, progress in done.ongoing:
        attempt.progress = progress
    if done.to_perform is not None:
        _perform(connection, job, done, *done.to_perform, check_lease, limit)
    return done


def _work(
    connection: psycopg.Connection, job: Job[Any], members: Sequence[UnitAttempt], done: Committed
) -> None:
    """Run the first unit's next step for every unit at that step.

    A unit that is alone may turn out to be done already.
    """
    found: list[Checkpoint | None] = [a.progress for a in members if a.progress is not None]
    if not found:
        decisions = begin(connection, job, members)
        if len(members) == 1 and (reason := decisions[0].reason_to_skip):
            result = UnitResult(Outcome.SKIPPED, reason=reason)
            close(connection, job, members, [result])
            done.ended.append((members[0], result))
            return
        found = [None if one.reason_to_skip else one.checkpoint for one in decisions]
    inside: list[tuple[UnitAttempt, Checkpoint]] = []
    for attempt, at in zip(members, found, strict=True):
        may_share = at is not None and at.step is None and takes_groups(job, at)
        if at is not None and (
            len(members) == 1 or (may_share and (not inside or at.done == inside[0][1].done))
        ):
            inside.append((attempt, at))
        else:
            done.apart.append(attempt)
    if inside:
        _do_inside(connection, job, inside, done)


def _do_inside(
    connection: psycopg.Connection,
    job: Job[Any],
    inside: Sequence[tuple[UnitAttempt, Checkpoint]],
    done: Committed,
) -> None:
    attempts, at = [attempt for attempt, _ in inside], inside[0][1]
    unit = attempts[0].unit
    if unit.former_tenant_id is not None and not at.done:
        set_tenant(connection, unit.former_tenant_id)
        job.remove(connection, unit.former_tenant_id, unit.id)
        set_tenant(connection, unit.tenant_id)
    name = job.next_step(at.done)
    step = job.steps[name]
    if isinstance(step, Effect) and not unit.gone:
        actions = due(connection, attempts[0], list(step.due(_unit_run(connection, attempts[0]))))
        done.to_perform = (step, actions)
        done.ongoing.append((attempts[0], at))
        return
    ends = _do(connection, job, attempts, name, at)
    results = [end for end in ends if isinstance(end, UnitResult)]
    if results:
        close(connection, job, attempts, results)
        done.ended += zip(attempts, results, strict=True)
        return
    for (attempt, begun), end in zip(inside, ends, strict=True):
        to = begun.within(name, end.cursor) if isinstance(end, Continue) else begun.after(name)
        done.ongoing.append((attempt, to))
    end_step(connection, attempts, [reached for _, reached in done.ongoing])


def _perform(
    connection: psycopg.Connection,
    job: Job[Any],
    done: Committed,
    effect: Effect[Any],
    actions: Sequence[Action],
    check_lease: Callable[[UnitAttempt], None],
    limit: timedelta | None,
) -> None:
    """Perform the actions of an effect step, and end the step."""
    ((attempt, at),) = done.ongoing

    @contextmanager
    def entered() -> Iterator[None]:
        check_lease(attempt)
        with snapshot_transaction(connection), cancelled_when_stopped(connection):
            if enter(connection, [attempt], limit):
                raise LeaseLostError(TAKEN_OVER)
            yield

    perform(connection, attempt, effect, actions, entered)
    reached = at.after(job.next_step(at.done))
    with entered():
        end_step(connection, [attempt], [reached])
    done.ongoing = [(attempt, reached)]
    attempt.progress = reached


def _do(
    connection: psycopg.Connection,
    job: Job[Any],
    attempts: Sequence[UnitAttempt],
    name: str,
    at: Checkpoint,
) -> Sequence[UnitResult | Continue | None]:
    """Run a step of the job; return each unit's result."""
    first = attempts[0]
    unit = first.unit
    if unit.gone:
        removed = job.remove(connection, unit.tenant_id, unit.id)
        return [UnitResult(reason=f"{unit.kind} gone: its rows removed", rows_removed=removed)]
    step = job.steps[name]
    ends: Sequence[UnitResult | Continue | None]
    if isinstance(step, Grouped):
        results = step.do(_group_run(connection, attempts))
        ends = [None if results is None else results.get(attempt.unit.id) for attempt in attempts]
    elif isinstance(step, Effect):
        raise TypeError(
            f"step {name!r} of {job.name} is an Effect and cannot run inside a transaction"
        )
    else:
        ends = [step(_unit_run(connection, first, at.cursor_of(name)))]
    for end in ends:
        is_piece = isinstance(end, Continue) and not isinstance(step, Grouped)
        if isinstance(end, UnitResult) != (name == job.last_step) and not is_piece:
            raise TypeError(
                f"step {name!r} of {job.name} returned {type(end).__name__}: the last step returns "
                "a UnitResult, the others None or, unless they take groups, Continue"
            )
    return ends


def _unit_run(
    connection: psycopg.Connection, attempt: UnitAttempt, cursor: Any = None
) -> UnitRun[Any]:
    run, unit = attempt.run, attempt.unit

    def set_aside(key: str, payload: Mapping[str, Any], error: Exception) -> None:
        dead_letters.write_item(connection, run, unit, key, payload, error)

    return UnitRun(
        connection,
        unit,
        attempt.settings,
        attempt.batch_try.parameters,
        run.as_of,
        run.force,
        set_aside,
        cursor,
    )


def _group_run(connection: psycopg.Connection, attempts: Sequence[UnitAttempt]) -> GroupRun[Any]:
    first = attempts[0]

    def set_aside(of: Unit, key: str, payload: Mapping[str, Any], error: Exception) -> None:
        dead_letters.write_item(connection, first.run, of, key, payload, error)

    return GroupRun(
        connection,
        first.unit.tenant_id,
        tuple(attempt.unit for attempt in attempts),
        first.settings,
        first.batch_try.parameters,
        first.run.as_of,
        first.run.force,
        set_aside,
    )


def preview_unit(connection: psycopg.Connection, job: Job[Any], attempt: UnitAttempt) -> UnitResult:
    """Run the job's preview of a unit; the attempt ends skipped: nothing was done.

    It needs no lease and no token, and blocks nobody: all that it writes is its row in history,
    once it has ended.

    Raises:
        PermanentError: the job has no dry run.
        LeaseLostError: a later plan of the run has taken over.
    """
    if job.preview is None:
        raise PermanentError(f"{job.name} has no dry run")
    unit = attempt.unit

    def set_aside(_key: str, _payload: Mapping[str, Any], _error: Exception) -> None:
        """Write nothing: it would be a change."""

    with snapshot_transaction(connection), cancelled_when_stopped(connection):
        set_tenant(connection, unit.tenant_id)
        standing(connection, job, [attempt])
        if unit.gone:
            reason = f"dry run: {unit.kind} gone, its rows would be removed"
            result = UnitResult(Outcome.SKIPPED, reason=reason)
        else:
            run = replace(_unit_run(connection, attempt), force=False, set_aside=set_aside)
            result = replace(job.preview.do(run), outcome=Outcome.SKIPPED, reason=DRY_RUN)
        open_rows(connection, [attempt])
        close(connection, job, [attempt], [result])
    return result
