"""Process: a batch's venues, each under its lease, none stopping another.

Of each venue: lease, token, history row, steps, release. Small venues take their leases, tokens and
rows together, which is what makes ten thousand of them cheap; their steps are each one's own.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.pq import TransactionStatus

from venue_analytics.harness import attempts, history
from venue_analytics.harness.attempts import VenueAttempt
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.database_errors import in_words
from venue_analytics.harness.errors import AnalyticsError, PermanentError, TransientError
from venue_analytics.harness.failures import VenueFailure, describe
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.interrupts import stopped_by_sigterm
from venue_analytics.harness.job import Job, Outcome, Venue, VenueResult
from venue_analytics.harness.leases import RENEWAL, Held, Holder, LeaseKeeper, Leases
from venue_analytics.harness.settings import JobSettings
from venue_analytics.harness.standing import Work
from venue_analytics.harness.steps import do_steps, preview_venue

log = logging.getLogger(__name__)

Connect = Callable[[], psycopg.Connection]

#: Venues are taken together as long as they are expected to take no longer than this, in all.
TOGETHER_SECONDS = 1.0
TOGETHER = 100
POLL_SECONDS = 0.25


def process_batch(
    connect: Connect,
    leases: Leases,
    job: Job[Any],
    run: PlannedRun,
    batch: Batch,
    settings: JobSettings,
    *,
    try_number: int = 1,
    clear_number: int = 0,
    renew_every: timedelta = RENEWAL,
    wait_at_most: timedelta | None = None,
    around: Callable[[Venue], AbstractContextManager[Any]] = nullcontext,
    on_venue: Callable[[Venue, str], None] | None = None,
    on_wait: Callable[[Venue, str], None] | None = None,
) -> list[VenueFailure]:
    """Do what the present round of a batch lacks.

    Args:
        connect: opens a connection of the jobs' role.
        leases: of the job.
        job: the job.
        run: as planned.
        batch: whose venues to do.
        settings: as plan stored them.
        try_number: of the batch; it takes over the leases of earlier ones.
        clear_number: how often the run had been cleared when this try began.
        renew_every: how often leases are renewed.
        wait_at_most: for others who do the same work; None means the settings' timeout. Others
            who do other work are waited for two lease lengths.
        around: a context that each venue is worked on in, such as a group of the log.
        on_venue: called when a venue has ended, with how, in words.
        on_wait: called when a venue is first seen to be somebody else's, with whose, in words.

    Returns:
        The venues that failed.

    Raises:
        Stopped: SIGTERM came. Like any other BaseException: nothing half-written stays, the rows
            are closed, the leases given back.
    """
    with stopped_by_sigterm(), LeaseKeeper(leases, every=renew_every) as keeper:
        work = _BatchWork(
            connect, leases, keeper, job, run, batch, settings, try_number, clear_number
        )
        # before the task's own timeout strikes, which could not say whom it waited for
        work.wait_at_most = wait_at_most or 0.9 * timedelta(minutes=settings.timeout_minutes)
        work.around = around
        work.on_venue = on_venue
        work.on_wait = on_wait
        try:
            work.begin()
            if run.dry_run:
                work.preview()
            else:
                work.do()
            if not work.failures:
                work.end_well()
        except BaseException as stop:
            work.close_what_is_open(stop)
            raise
        finally:
            work.connection.close()
    return work.failures


class _BatchWork:
    """The state of one try of a batch."""

    around: Callable[[Venue], AbstractContextManager[Any]]
    on_venue: Callable[[Venue, str], None] | None
    on_wait: Callable[[Venue, str], None] | None
    wait_at_most: timedelta
    round: int

    def __init__(
        self,
        connect: Connect,
        leases: Leases,
        keeper: LeaseKeeper,
        job: Job[Any],
        run: PlannedRun,
        batch: Batch,
        settings: JobSettings,
        try_number: int,
        clear_number: int,
    ) -> None:
        self.failures: list[VenueFailure] = []
        self.connection = connect()
        self._connect = connect
        self._leases = leases
        self._keeper = keeper
        self._job = job
        self._run = run
        self._batch = batch
        self._settings = settings
        self._rules_hash = settings.rules_hash()
        self._try_number = try_number
        self._clear_number = clear_number
        self._process = uuid4()
        self._queue: deque[VenueAttempt] = deque()
        # since when somebody else was seen to hold them
        self._waiting: dict[UUID, float] = {}
        self._at_work: list[VenueAttempt] = []
        # why the database could not be reached again; then no further venue is begun
        self._unreachable: psycopg.OperationalError | None = None
        self._seconds: list[float] = []

    def begin(self) -> None:
        """Open or join the round; see what it lacks.

        What failed for good is left alone, unless somebody has cleared the run since.
        """
        run, number = self._run, self._batch.number
        self.round = history.open_round(self.connection, run, number, self._clear_number)
        ended = history.last_attempts(self.connection, run, number)
        done = []
        for venue in self._batch.venues:
            attempt = ended.get(venue.venue_id)
            if attempt is not None and attempt.ended_well:
                done.append(venue)
                continue
            if attempt and attempt.permanent and attempt.clear_number >= self._clear_number:
                self._tell_failed(venue, PermanentError(attempt.error or "failed for good"))
            else:
                self._queue.append(self._attempt(venue))
        if self._try_number > 1 and not run.dry_run:
            self._give_back_left_leases(done)

    def preview(self) -> None:
        """Have the job say of each venue what would change; nobody is kept from it."""
        while self._queue:
            attempt = self._queue.popleft()
            self._at_work = [attempt]
            self._work_on_one(attempt)

    def do(self) -> None:
        """Work until no venue is left; those that others hold come last."""
        while self._queue:
            if self._unreachable is not None:
                self._fail_all(self._queue, self._unreachable)
                self._queue.clear()
                return
            together = self._next()
            try:
                held = self._keeper.take({a.venue.venue_id: a.holder for a in together})
            except TransientError as error:
                self._fail_all([*together, *self._queue], error)
                self._queue.clear()
                return
            for attempt in together:
                if attempt.venue.venue_id in held:
                    self._wait_for(attempt, held[attempt.venue.venue_id])
                else:
                    self._waiting.pop(attempt.venue.venue_id, None)
            mine = [a for a in together if a.venue.venue_id not in held]
            if mine:
                self._work_on(mine)
            elif all(a.venue.venue_id in self._waiting for a in self._queue):
                time.sleep(POLL_SECONDS)

    def end_well(self) -> None:
        """Note that the round is done: only a clear has it done again."""
        self._reconnect_if_closed()
        history.end_round_well(
            self.connection, self._run, self._batch.number, self.round, self._clear_number
        )

    def close_what_is_open(self, stop: BaseException) -> None:
        """End in history the attempts that a stop has interrupted."""
        for attempt in self._at_work:
            log.warning("%s: rolled back and given back: %s", attempt.venue.name, describe(stop))
        try:
            if self.connection.info.transaction_status is not TransactionStatus.IDLE:
                # stopped inside a query: the connection still waits for its answer
                self.connection.close()
            for attempt in self._at_work:
                self._reconnect_if_closed()
                attempts.close_failed(self.connection, attempt, stop)
        except Exception as error:  # noqa: BLE001  the stop is what is to be told
            log.warning("finish will close what is open in history: %s", describe(error))

    def _give_back_left_leases(self, done: Sequence[Venue]) -> None:
        """Give back leases of earlier tries that were killed between commit and release."""
        try:
            self._keeper.take({venue.venue_id: self._attempt(venue).holder for venue in done})
        except TransientError as error:
            log.warning("leases that an earlier try left run out by themselves: %s", error)
        self._keeper.give_back([venue.venue_id for venue in done])

    def _attempt(self, venue: Venue) -> VenueAttempt:
        run = self._run
        own = self._settings.for_venue(venue.venue_id)
        rules_hash = self._rules_hash if own is self._settings else own.rules_hash()
        work = Work(
            run.as_of,
            rules_hash,
            run.force,
            run.id,
            self._batch.number,
            self.round,
            run.plan_number,
        )
        holder = Holder(
            run.deployment,
            run.run_id,
            self._batch.number,
            self._try_number,
            run.as_of,
            rules_hash,
            self._process,
        )
        return VenueAttempt(run, venue, own, work, holder, self._clear_number)

    def _next(self) -> list[VenueAttempt]:
        """Take the next venue off the queue, and with a small one those small ones behind it."""
        together = [self._queue.popleft()]
        seconds = self._expected(together[0])
        while self._queue and len(together) < TOGETHER:
            seconds += self._expected(self._queue[0])
            if seconds > TOGETHER_SECONDS:
                break
            together.append(self._queue.popleft())
        return together

    def _expected(self, attempt: VenueAttempt) -> float:
        if attempt.venue.expected_seconds is not None:
            return attempt.venue.expected_seconds
        if self._seconds:
            return sum(self._seconds) / len(self._seconds)
        return TOGETHER_SECONDS

    def _wait_for(self, attempt: VenueAttempt, held: Held) -> None:
        """Put a venue that somebody else holds behind the others, or give up."""
        now = time.monotonic()
        is_new = attempt.venue.venue_id not in self._waiting
        since = self._waiting.setdefault(attempt.venue.venue_id, now)
        who = held.holder or "somebody unknown"
        if held.holder is not None and held.holder.does_the_work_of(attempt.holder):
            limit = self.wait_at_most
        else:
            limit = 2 * self._leases.length
        if is_new:
            told = f"waits, {limit.total_seconds():.0f} s at the most: {who} is at work on it"
            log.info("%s %s", attempt.venue.name, told)
            if self.on_wait is not None:
                self.on_wait(attempt.venue, told)
        if now - since < limit.total_seconds():
            self._queue.append(attempt)
            return
        self._fail(
            attempt,
            TransientError(f"its lease is held by {who}: waited {limit.total_seconds():.0f} s"),
        )

    def _work_on(self, together: list[VenueAttempt]) -> None:
        """Do venues whose leases are ours."""
        self._at_work = list(together)
        try:
            self._reconnect_if_closed()
            attempts.draw_tokens(self.connection, self._job.name, together)
            still = self._keeper.are_held({a.venue.venue_id: a.holder for a in together})
            for attempt in together:
                if not still[attempt.venue.venue_id]:
                    # it ran out before the token was drawn: from the start
                    self._leave(attempt)
                    self._keeper.give_back([attempt.venue.venue_id])
                    attempt.start_over()
                    self._queue.append(attempt)
            if self._at_work:
                attempts.open_rows(self.connection, self._at_work)
        except psycopg.errors.LockNotAvailable as error:
            self._work_one_by_one(together, error)
        except Exception as error:  # noqa: BLE001  told for each venue, and no other is stopped
            self._fail_all(self._at_work, error)
        for attempt in list(self._at_work):
            self._work_on_one(attempt)
        # those that were done early are held on to: it is about a second, and one round trip
        self._keeper.give_back([attempt.venue.venue_id for attempt in together])

    def _work_one_by_one(self, together: list[VenueAttempt], error: Exception) -> None:
        """A transaction on one of these venues goes on for too long: find out which."""
        if len(together) == 1:
            self._fail_all(together, error)
            return
        self._at_work = []
        for attempt in together:
            self._work_on([attempt])

    def _work_on_one(self, attempt: VenueAttempt) -> None:
        venue = attempt.venue
        began = time.monotonic()
        with self.around(venue):
            try:
                self._reconnect_if_closed()
                if self._run.dry_run:
                    result = preview_venue(self.connection, self._job, attempt)
                else:
                    result = do_steps(
                        self.connection,
                        self._job,
                        attempt,
                        lambda: self._keeper.check(venue.venue_id),
                    )
            except Exception as error:  # noqa: BLE001  told, and no other venue is stopped
                self._fail(attempt, error)
            else:
                if result.outcome is Outcome.SUCCEEDED:
                    self._seconds.append(time.monotonic() - began)
                self._tell(venue, f"{result.outcome}: {_in_words(result)}")
        self._leave(attempt)

    def _leave(self, attempt: VenueAttempt) -> None:
        self._at_work = [other for other in self._at_work if other is not attempt]

    def _fail_all(self, failed: Sequence[VenueAttempt], error: Exception) -> None:
        for attempt in list(failed):
            self._fail(attempt, error)
            self._leave(attempt)

    def _fail(self, attempt: VenueAttempt, error: Exception) -> None:
        """Close the attempt's row, where history can be reached, and tell."""
        try:
            self._reconnect_if_closed()
            attempts.close_failed(self.connection, attempt, error)
        except Exception as unnoted:  # noqa: BLE001  history is one thing, the next venue another
            log.warning("%s: not noted in history: %s", attempt.venue.name, describe(unnoted))
        fault = in_words(error) if isinstance(error, psycopg.Error) else error
        self._tell_failed(attempt.venue, fault)

    def _tell_failed(self, venue: Venue, fault: Exception) -> None:
        self.failures.append(VenueFailure(venue, fault))
        self._tell(venue, f"failed: {describe(fault)}", fault)

    def _tell(self, venue: Venue, told: str, fault: Exception | None = None) -> None:
        if fault is None:
            log.info("%s %s", venue.name, told)
        else:
            # where it happened; what it was chained to may hold somebody's values
            frames = traceback.format_tb(fault.__traceback__)
            where = "" if isinstance(fault, AnalyticsError) else "\n" + "".join(frames).rstrip()
            log.error("%s %s%s", venue.name, told, where)
        if self.on_venue is not None:
            self.on_venue(venue, told)

    def _reconnect_if_closed(self) -> None:
        if self._unreachable is not None:
            raise self._unreachable
        if self.connection.closed:
            try:
                self.connection = self._connect()
            except psycopg.OperationalError as error:
                self._unreachable = error
                raise


def _in_words(result: VenueResult) -> str:
    if result.outcome is Outcome.SKIPPED:
        return result.reason or "nothing to do"
    left_out = "".join(f", {count:,} {kind}" for kind, count in sorted(result.left_out.items()))
    reason = f"; {result.reason}" if result.reason else ""
    return (
        f"{result.rows_read:,} rows read, {result.rows_written:,} written, "
        f"{result.rows_unchanged:,} unchanged, {result.rows_removed:,} removed{left_out}{reason}"
    )
