"""A step of a group of venues: one transaction, from where their work was left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import psycopg

from venue_analytics.harness import dead_letters
from venue_analytics.harness.attempts import (
    TAKEN_OVER,
    VenueAttempt,
    begin,
    close,
    end_step,
    enter,
    open_rows,
    standing,
)
from venue_analytics.harness.errors import LeaseLostError, PermanentError
from venue_analytics.harness.interrupts import cancelled_when_stopped
from venue_analytics.harness.job import (
    Again,
    Grouped,
    GroupRun,
    Job,
    Outcome,
    Venue,
    VenueResult,
    VenueRun,
)
from venue_analytics.harness.standing import Checkpoint
from venue_analytics.harness.tenant import one_moment, set_tenant


@dataclass
class Committed:
    """What has become of a group in one transaction.

    Attributes:
        ended: attempts that have ended well, each with its result.
        ongoing: attempts that have done a step or a piece of it, each with where to go on.
        lost: attempts whose venue another attempt has taken over, each with the error.
        apart: attempts that were not in it, each to be done by itself: they are done already, or
            are at another step.
    """

    ended: list[tuple[VenueAttempt, VenueResult]] = field(default_factory=list)
    ongoing: list[tuple[VenueAttempt, Checkpoint]] = field(default_factory=list)
    lost: list[tuple[VenueAttempt, LeaseLostError]] = field(default_factory=list)
    apart: list[VenueAttempt] = field(default_factory=list)


def takes_groups(job: Job[Any], step: int) -> bool:
    """Return whether a step of a job may work on several venues at once."""
    return isinstance(job.steps[step], Grouped)


def do_step(
    connection: psycopg.Connection,
    job: Job[Any],
    group: Sequence[VenueAttempt],
    check_lease: Callable[[VenueAttempt], None],
    limit: timedelta | None = None,
) -> Committed:
    """Do the next step of a group in one transaction.

    It holds the fences, and commits the step's data with the checkpoints; the last step's closes
    the attempts in history instead.

    Args:
        connection: not in a transaction.
        job: the job.
        group: venues of one tenant under the same settings; tokens are drawn, rows opened.
        check_lease: raises LeaseLostError when no further transaction may be opened on a venue.
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
        with one_moment(connection), cancelled_when_stopped(connection):
            stale = enter(connection, members, limit)
            lost = [attempt for attempt in members if attempt.venue.venue_id in stale]
            done.lost += [(attempt, LeaseLostError(TAKEN_OVER)) for attempt in lost]
            if members := [a for a in members if a.venue.venue_id not in stale]:
                _work(connection, job, members, done)
    for attempt, progress in done.ongoing:
        attempt.progress = progress
    return done


def _work(
    connection: psycopg.Connection, job: Job[Any], members: Sequence[VenueAttempt], done: Committed
) -> None:
    """Do the step of those that are at the first one's; a venue alone may be done already."""
    found: Sequence[str | Checkpoint] = [a.progress for a in members if a.progress is not None]
    found = found or begin(connection, job, members)
    if len(members) == 1 and isinstance(found[0], str):
        result = VenueResult(Outcome.SKIPPED, reason=found[0])
        close(connection, job, members, [result])
        done.ended.append((members[0], result))
        return
    inside: list[tuple[VenueAttempt, Checkpoint]] = []
    for attempt, at in zip(members, found, strict=True):
        may_share = isinstance(at, Checkpoint) and at.cursor is None and takes_groups(job, at.step)
        if isinstance(at, Checkpoint) and (
            len(members) == 1 or (may_share and (not inside or at.step == inside[0][1].step))
        ):
            inside.append((attempt, at))
        else:
            done.apart.append(attempt)
    if not inside:
        return
    attempts = [attempt for attempt, _ in inside]
    ends = _do(connection, job, attempts, inside[0][1])
    results = [end for end in ends if isinstance(end, VenueResult)]
    if results:
        close(connection, job, attempts, results)
        done.ended += zip(attempts, results, strict=True)
        return
    for (attempt, at), end in zip(inside, ends, strict=True):
        to = (at.step, end.cursor) if isinstance(end, Again) else (at.step + 1, None)
        done.ongoing.append((attempt, replace(at, step=to[0], cursor=to[1])))
    end_step(connection, attempts, [at for _, at in done.ongoing])


def _do(
    connection: psycopg.Connection, job: Job[Any], attempts: Sequence[VenueAttempt], at: Checkpoint
) -> Sequence[VenueResult | Again | None]:
    """Have the job do a step; return the end of each venue."""
    first = attempts[0]
    venue, run = first.venue, first.run
    if venue.former_tenant_id is not None and at.step == 0:
        set_tenant(connection, venue.former_tenant_id)
        job.remove(connection, venue.former_tenant_id, venue.venue_id)
        set_tenant(connection, venue.tenant_id)
    if venue.gone:
        removed = job.remove(connection, venue.tenant_id, venue.venue_id)
        return [VenueResult(reason="venue gone: its rows removed", rows_removed=removed)]

    def set_aside(of: Venue, key: str, payload: Mapping[str, Any], error: Exception) -> None:
        dead_letters.write_item(connection, run, of, key, payload, error)

    step, as_of, force = job.steps[at.step], first.work.as_of, first.work.force
    ends: Sequence[VenueResult | Again | None]
    if isinstance(step, Grouped):
        venues = tuple(attempt.venue for attempt in attempts)
        results = step.do(
            GroupRun(connection, venue.tenant_id, venues, first.settings, as_of, force, set_aside)
        )
        ends = [None if results is None else results.get(venue.venue_id) for venue in venues]
    else:

        def set_aside_here(key: str, payload: Mapping[str, Any], error: Exception) -> None:
            set_aside(venue, key, payload, error)

        ends = [
            step(
                VenueRun(connection, venue, first.settings, as_of, force, set_aside_here, at.cursor)
            )
        ]
    is_last = at.step == len(job.steps) - 1
    for end in ends:
        is_piece = isinstance(end, Again) and not isinstance(step, Grouped)
        if isinstance(end, VenueResult) != is_last and not is_piece:
            raise TypeError(
                f"step {at.step + 1} of {len(job.steps)} of {job.name} gave {type(end).__name__}: "
                "the last step gives a VenueResult, the others None; one that takes groups has no "
                "pieces"
            )
    return ends


def preview_venue(
    connection: psycopg.Connection, job: Job[Any], attempt: VenueAttempt
) -> VenueResult:
    """Have the job say what would change; it ends skipped: nothing was done.

    It needs no lease and no token, and keeps nobody from a venue: all that it writes is its row in
    history, when it has ended.

    Raises:
        PermanentError: the job has no dry run.
        LeaseLostError: a later plan of the run has taken over.
    """
    if job.preview is None:
        raise PermanentError(f"{job.name} has no dry run")
    venue = attempt.venue

    def set_aside(_key: str, _payload: Mapping[str, Any], _error: Exception) -> None:
        """Note nothing: it would be a change."""

    with one_moment(connection), cancelled_when_stopped(connection):
        set_tenant(connection, venue.tenant_id)
        standing(connection, job, [attempt])
        if venue.gone:
            reason = "dry run: venue gone, its rows would be removed"
            result = VenueResult(Outcome.SKIPPED, reason=reason)
        else:
            run = VenueRun(
                connection, venue, attempt.settings, attempt.work.as_of, False, set_aside
            )
            reason = "dry run: nothing was written"
            result = replace(job.preview(run), outcome=Outcome.SKIPPED, reason=reason)
        open_rows(connection, [attempt])
        close(connection, job, [attempt], [result])
    return result
