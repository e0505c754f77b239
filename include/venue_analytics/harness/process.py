"""Process a batch: each unit under a lease; one that fails does not stop the others.

Each unit goes through: lease, token, history row, steps, release. Small units take their leases,
tokens and rows together, and those of one tenant share transactions where the job allows it: that
is what makes ten thousand of them cheap. After a group has failed, its units are processed one by
one, so that only the bad one fails.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from venue_analytics.harness import attempts, groups, history
from venue_analytics.harness.attempts import BatchTry, UnitAttempt, rules_hash
from venue_analytics.harness.batches import label
from venue_analytics.harness.database_errors import translate_error
from venue_analytics.harness.errors import AnalyticsError, PermanentError, TransientError
from venue_analytics.harness.failures import UnitFailure, describe
from venue_analytics.harness.interrupts import stopped_by_sigterm
from venue_analytics.harness.job import Job, Outcome, UnitResult
from venue_analytics.harness.leases import RENEWAL, Held, LeaseKeeper, Leases
from venue_analytics.harness.queue import UnitQueue
from venue_analytics.harness.steps import Committed, do_step, preview_unit, takes_groups
from venue_analytics.harness.unit import Unit

log = logging.getLogger(__name__)

Connect = Callable[[], psycopg.Connection]

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Listener:
    """What is called while a batch is processed.

    Attributes:
        around: a context that each group of units, by its name, is processed in, such as a fold of
            the log.
        on_unit: called with a description when a unit has ended.
        on_wait: called when a unit is first seen to be held by somebody else, with whom, in words.
    """

    around: Callable[[str], AbstractContextManager[Any]] = nullcontext
    on_unit: Callable[[Unit, str], None] = lambda *_: None
    on_wait: Callable[[Unit, str], None] = lambda *_: None


def process_batch(
    connect: Connect,
    leases: Leases,
    job: Job[Any],
    batch_try: BatchTry,
    *,
    listener: Listener | None = None,
    renew_every: timedelta = RENEWAL,
    wait_at_most: timedelta | None = None,
) -> list[UnitFailure]:
    """Process every unit of the batch that has not ended well in the current round.

    Args:
        connect: opens a connection of the jobs' role.
        leases: of the job.
        job: the job.
        batch_try: the batch, and which try of it this is; its round is opened or joined here.
        listener: what is called as units wait and end.
        renew_every: how often leases are renewed.
        wait_at_most: for an attempt doing the same work; None means 0.9 of the settings' timeout.
            An attempt doing other work is waited for at most two lease lengths.

    Returns:
        The units that failed.

    Raises:
        Stopped: SIGTERM came. As after any other BaseException, nothing half-written stays, the
            rows are closed, and the leases are released.
    """
    # before the task's own timeout strikes, whose message could not name the holder
    timeout = timedelta(minutes=batch_try.settings.timeout_minutes)
    with stopped_by_sigterm(), LeaseKeeper(leases, every=renew_every) as keeper:
        database = _Database(connect)
        work = _BatchWork(
            database,
            keeper,
            job,
            batch_try,
            listener or Listener(),
            _Patience(wait_at_most or 0.9 * timeout, 2 * leases.length),
        )
        try:
            work.begin()
            if batch_try.run.dry_run:
                work.preview()
            else:
                work.do()
            if not work.failures:
                work.end_well()
        except BaseException as stop:
            work.close_what_is_open(stop)
            raise
        finally:
            database.close()
    return work.failures


@dataclass(frozen=True)
class _Patience:
    """How long somebody else is waited for, who does the same work, or other work."""

    same_work: timedelta
    other_work: timedelta


class _Database:
    """A connection that is opened again where it was lost."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection = connect()
        #: Why it could not be reached again; then no further unit is begun.
        self.unreachable: psycopg.OperationalError | None = None

    def open(self) -> psycopg.Connection:
        """Return the connection.

        Raises:
            psycopg.OperationalError: the database cannot be reached, or could not the last time.
        """
        if self.unreachable is not None:
            raise self.unreachable
        if self._connection.closed:
            try:
                self._connection = self._connect()
            except psycopg.OperationalError as error:
                self.unreachable = error
                raise
        return self._connection

    def close_if_busy(self) -> None:
        """Close a connection that a stop has left inside a query: it still waits for the answer."""
        if self._connection.info.transaction_status is not TransactionStatus.IDLE:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class _BatchWork:
    """The state of one try of a batch."""

    def __init__(
        self,
        database: _Database,
        keeper: LeaseKeeper,
        job: Job[Any],
        batch_try: BatchTry,
        listener: Listener,
        patience: _Patience,
    ) -> None:
        self.failures: list[UnitFailure] = []
        self.batch_try = batch_try
        self.at_work: list[UnitAttempt] = []
        self.keeper = keeper
        self._database = database
        self._job = job
        self._listener = listener
        self._patience = patience
        self._queue = UnitQueue([], {})
        # what failed transactions have cost, in words
        self._lost: list[str] = []

    def begin(self) -> None:
        """Open or join the round, and queue the units that have not ended well in it.

        A unit that failed permanently is left alone, unless somebody has cleared the run since.
        """
        run, number = self.batch_try.run, self.batch_try.batch.number
        connection = self._database.open()
        clear_number = self.batch_try.clear_number
        round_ = history.open_round(connection, run, number, clear_number)
        self.batch_try = replace(self.batch_try, round=round_)
        last = history.last_attempts(connection, run, number)
        done, left = [], []
        for attempt in self._attempts():
            before = last.get(attempt.unit.id)
            if before is not None and before.ended_well:
                done.append(attempt)
            elif before and before.permanent and before.clear_number >= clear_number:
                error = PermanentError(before.error or "failed permanently")
                self._report_failed(attempt.unit, error)
            else:
                left.append(attempt)
        self._queue = UnitQueue(left, last)
        if self.batch_try.try_number > 1 and not run.dry_run:
            self._release_left_leases(done)

    def preview(self) -> None:
        """Run the job's preview of each unit; nobody is blocked."""
        while self._queue:
            for attempt in self._queue.take():
                self.at_work = [attempt]
                with self._listener.around(attempt.unit.name):
                    try:
                        result = preview_unit(self._database.open(), self._job, attempt)
                    except Exception as error:  # noqa: BLE001  reported, and the others go on
                        self._fail([attempt], error)
                    else:
                        self._end(attempt, result)

    def do(self) -> None:
        """Process units until none is left; those that others hold come last."""
        while self._queue:
            if self._database.unreachable is not None:
                self._fail(self._queue.take_all(), self._database.unreachable)
                break
            together = self._queue.take()
            try:
                held = self.keeper.take({a.unit.id: a.holder for a in together})
            except TransientError as error:
                self._fail([*together, *self._queue.take_all()], error)
                break
            for attempt in together:
                if attempt.unit.id in held:
                    self._wait_for(attempt, held[attempt.unit.id])
                else:
                    self._queue.stop_waiting(attempt)
            mine = [a for a in together if a.unit.id not in held]
            if mine:
                self._work_on(mine)
            elif self._queue.is_held:
                time.sleep(POLL_SECONDS)

    def end_well(self) -> None:
        """Store that the round is done: only a clear repeats it."""
        one = self.batch_try
        history.end_round_well(
            self._database.open(), one.run, one.batch.number, one.round, one.clear_number
        )

    def close_what_is_open(self, stop: BaseException) -> None:
        """Close the attempts in history that a stop has interrupted."""
        for attempt in self.at_work:
            log.warning("%s: rolled back and released: %s", attempt.unit.name, describe(stop))
        try:
            self._database.close_if_busy()
            if self.at_work:
                attempts.close_failed(self._database.open(), self.at_work, stop)
        except Exception as error:  # noqa: BLE001  the stop is what is to be reported
            log.warning("finish will close what is open in history: %s", describe(error))

    def _release_left_leases(self, done: Sequence[UnitAttempt]) -> None:
        """Release leases of earlier tries that were killed between commit and release."""
        try:
            self.keeper.take({attempt.unit.id: attempt.holder for attempt in done})
        except TransientError as error:
            log.warning("leases that an earlier try left will expire by themselves: %s", error)
        self.keeper.release([attempt.unit.id for attempt in done])

    def _attempts(self) -> Iterator[UnitAttempt]:
        one = self.batch_try
        common_hash = rules_hash(one.settings, one.parameters)
        for unit in one.batch.units:
            own = one.settings.for_unit(unit.id)
            own_hash = common_hash if own is one.settings else rules_hash(own, one.parameters)
            yield UnitAttempt(one, unit, own, own_hash, one.process)

    def _in_groups(self, together: Sequence[UnitAttempt]) -> Iterator[list[UnitAttempt]]:
        """Cut units into those that may share a transaction."""

        def alike(attempt: UnitAttempt) -> Hashable | None:
            if attempt.is_alone or not takes_groups(self._job, None):
                return None
            return groups.likeness(attempt.unit, self.batch_try.settings.overrides)

        return groups.cut(together, lambda attempt: attempt.unit, alike)

    def _wait_for(self, attempt: UnitAttempt, held: Held) -> None:
        """Put a unit that somebody else holds behind the others; fail it after the limit."""
        who = held.holder or "somebody unknown"
        limit = self._patience.other_work
        if held.holder is not None and held.holder.does_the_work_of(attempt.holder):
            limit = self._patience.same_work
        seconds = f"{limit.total_seconds():.0f} s"
        if not self._queue.waits(attempt):
            description = f"waits, {seconds} at the most: {who} is at work on it"
            log.info("%s %s", attempt.unit.name, description)
            self._listener.on_wait(attempt.unit, description)
        if not self._queue.wait(attempt, limit):
            error = TransientError(f"its lease is held by {who}: waited {seconds}")
            self._fail([attempt], error)

    def _work_on(self, together: list[UnitAttempt]) -> None:
        """Process units whose leases are ours."""
        self.at_work += together
        try:
            connection = self._database.open()
            attempts.draw_tokens(connection, self._job.name, together)
            still = self.keeper.are_held({a.unit.id: a.holder for a in together})
            mine = [attempt for attempt in together if still[attempt.unit.id]]
            for attempt in together:
                if not still[attempt.unit.id]:
                    # it expired before the token was drawn: start this unit over
                    self._leave(attempt)
                    self.keeper.release([attempt.unit.id])
                    attempt.start_over()
                    self._queue.put_back(attempt)
            if mine:
                attempts.open_rows(connection, mine)
        except psycopg.errors.LockNotAvailable as error:
            if len(together) == 1:
                self._fail(together, error)
            else:
                # a transaction on one of these units goes on for too long: find out which
                mine = [attempt for attempt in together if attempt in self.at_work]
                for attempt in mine:
                    self._leave(attempt)
                for attempt in mine:
                    self._work_on([attempt])
        except Exception as error:  # noqa: BLE001  reported for each unit, and no other is stopped
            self._fail([a for a in together if a in self.at_work], error)
        else:
            self._work_in_groups(self._in_groups(mine))
        # the leases of those that ended early are kept until here: a second or two, one round trip
        self._release_ended(together)

    def _work_in_groups(self, cut: Iterable[list[UnitAttempt]]) -> None:
        """Process groups; after each, what its transaction has left undone comes first."""
        left = deque(cut)
        while left:
            group = left.popleft()
            with self._listener.around(label(_units(group))):
                undone = self._transact(group, others_wait=bool(left))
            # not in the fold, where nobody would see it
            for line in self._lost:
                log.warning(line)
            self._lost.clear()
            left.extendleft(reversed(undone))

    def _transact(self, group: list[UnitAttempt], *, others_wait: bool) -> list[list[UnitAttempt]]:
        """Do the next step of a group; return the groups that are left of it, in their order."""
        limit = None
        if others_wait or self._queue or len(group) > 1:
            patience = max(attempt.patience for attempt in group)
            limit = patience * groups.limit(attempt.unit for attempt in group)
            limit = min(limit, timedelta(minutes=self.batch_try.settings.timeout_minutes))
        began = time.monotonic()
        try:
            done = self._do_step(group, limit)
        except Exception as error:  # noqa: BLE001  reported, and no other unit is stopped
            return self._after(error, group, limit, time.monotonic() - began)
        seconds = time.monotonic() - began
        for attempt, _ in done.ongoing:
            attempt.seconds += seconds / len(done.ongoing)
        for attempt, result in done.ended:
            self._end(attempt, result)
        for attempt, lost in done.lost:
            self._fail([attempt], lost)
        return [*self._go_on([attempt for attempt, _ in done.ongoing]), *([a] for a in done.apart)]

    def _do_step(self, group: list[UnitAttempt], limit: timedelta | None) -> Committed:
        """Do a step; repeat it once for a group that met a deadlock or the like."""

        def check_lease(attempt: UnitAttempt) -> None:
            self.keeper.check(attempt.unit.id)

        connection = self._database.open()
        try:
            return do_step(connection, self._job, group, check_lease, limit)
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected) as error:
            if len(group) == 1:
                raise
            log.warning("%s: retrying: %s", label(_units(group)), describe(error))
        return do_step(connection, self._job, group, check_lease, limit)

    def _go_on(self, ongoing: list[UnitAttempt]) -> list[list[UnitAttempt]]:
        """Keep a group together where the next step takes groups."""
        if not ongoing:
            return []
        if takes_groups(self._job, ongoing[0].progress):
            return [ongoing]
        return [[attempt] for attempt in ongoing]

    def _after(
        self,
        error: Exception,
        group: list[UnitAttempt],
        limit: timedelta | None,
        seconds: float,
    ) -> list[list[UnitAttempt]]:
        """Find out which unit made its group fail; nothing of the group was written."""
        bad = [a for a in group if a.unit.id == getattr(error, "unit_id", None)]
        if len(group) > 1 and bad:
            self._fail(bad, error)
            return [[attempt for attempt in group if attempt not in bad]]
        if len(group) > 1 and groups.may_be_one_units(error):
            self._note_lost(group, error, limit, seconds, "each is processed by itself now")
            return [[attempt] for attempt in group]
        if limit is not None and isinstance(error, psycopg.errors.QueryCanceled):
            self._note_lost(group, error, limit, seconds, "it is processed after all others")
            self._put_back(group, error)
            return []
        self._fail(group, error)
        return []

    def _put_back(self, group: list[UnitAttempt], error: Exception) -> None:
        """Start attempts over, behind all others; nobody waits for their leases meanwhile."""
        self._close(group, error)
        for attempt in group:
            self._leave(attempt)
            attempt.start_over()
            attempt.is_alone = True
            attempt.patience *= groups.PATIENCE_GROWS
            self._queue.put_back(attempt)

    def _note_lost(
        self,
        group: list[UnitAttempt],
        error: Exception,
        limit: timedelta | None,
        seconds: float,
        then: str,
    ) -> None:
        """Keep what a failure has cost, and what happens next, for the log."""
        if limit is not None and isinstance(error, psycopg.errors.QueryCanceled):
            why = f"cut: a statement took longer than {limit.total_seconds():g} s"
        else:
            why = describe(error)
        self._lost.append(f"{label(_units(group))}: {seconds:.1f} s lost, {then}: {why}")

    def _leave(self, attempt: UnitAttempt) -> None:
        self.at_work = [other for other in self.at_work if other is not attempt]

    def _release_ended(self, together: Sequence[UnitAttempt]) -> None:
        kept = {attempt.unit.id for attempt in self.at_work}
        self.keeper.release([a.unit.id for a in together if a.unit.id not in kept])

    def _end(self, attempt: UnitAttempt, result: UnitResult) -> None:
        description = f"{result.outcome}: {_describe_result(result)}"
        log.info("%s %s", attempt.unit.name, description)
        self._listener.on_unit(attempt.unit, description)
        self._leave(attempt)

    def _fail(self, failed: Sequence[UnitAttempt], error: Exception) -> None:
        """Close the attempts' rows, and report the failures.

        If the row says that the attempt ended well, it did: the answer to the COMMIT was lost.
        """
        ended = self._close(failed, error)
        fault = translate_error(error) if isinstance(error, psycopg.Error) else error
        for attempt in failed:
            if attempt.row in ended:
                self._end(attempt, ended[attempt.row])
            else:
                self._report_failed(attempt.unit, fault)
                self._leave(attempt)

    def _close(self, failed: Sequence[UnitAttempt], error: Exception) -> dict[int, UnitResult]:
        """Close the attempts' rows, if history can be reached; return those that ended well."""
        try:
            return attempts.close_failed(self._database.open(), failed, error)
        except Exception as history_error:  # noqa: BLE001  the next unit goes on, history or not
            names = label(_units(failed))
            log.warning("%s: not stored in history: %s", names, describe(history_error))
            return {}

    def _report_failed(self, unit: Unit, fault: Exception) -> None:
        self.failures.append(UnitFailure(unit, fault))
        description = f"failed: {describe(fault)}"
        # where it happened; what it was chained to may hold somebody's values
        frames = traceback.format_tb(fault.__traceback__)
        where = "" if isinstance(fault, AnalyticsError) else "\n" + "".join(frames).rstrip()
        log.error("%s %s%s", unit.name, description, where)
        self._listener.on_unit(unit, description)


def _units(group: Sequence[UnitAttempt]) -> list[Unit]:
    return [attempt.unit for attempt in group]


def _describe_result(result: UnitResult) -> str:
    if result.outcome is Outcome.SKIPPED:
        return result.reason or "nothing to do"
    left_out = "".join(f", {count:,} {kind}" for kind, count in sorted(result.left_out.items()))
    reason = f"; {result.reason}" if result.reason else ""
    return (
        f"{result.rows_read:,} rows read, {result.rows_written:,} written, "
        f"{result.rows_unchanged:,} unchanged, {result.rows_removed:,} removed{left_out}{reason}"
    )
