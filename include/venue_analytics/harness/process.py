"""Process: a batch's venues, each under its lease, none stopping another.

Of each venue: lease, token, history row, steps, release. Small venues take their leases, tokens and
rows together, and those of one tenant share transactions where the job says so, which is what makes
ten thousand of them cheap. A group that fails is done one by one: only what is bad ends badly.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.pq import TransactionStatus

from venue_analytics.harness import attempts, groups, history
from venue_analytics.harness.attempts import VenueAttempt
from venue_analytics.harness.batches import Batch, label
from venue_analytics.harness.database_errors import in_words
from venue_analytics.harness.errors import AnalyticsError, PermanentError, TransientError
from venue_analytics.harness.failures import VenueFailure, describe
from venue_analytics.harness.history import PlannedRun
from venue_analytics.harness.interrupts import stopped_by_sigterm
from venue_analytics.harness.job import Job, Outcome, Venue, VenueResult
from venue_analytics.harness.leases import RENEWAL, Held, Holder, LeaseKeeper, Leases
from venue_analytics.harness.settings import JobSettings
from venue_analytics.harness.standing import Work
from venue_analytics.harness.steps import Committed, do_step, preview_venue, takes_groups

log = logging.getLogger(__name__)

Connect = Callable[[], psycopg.Connection]

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
    around: Callable[[str], AbstractContextManager[Any]] = nullcontext,
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
        around: a context that each group of venues, named in words, is worked on in, such as a
            fold of the log.
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

    around: Callable[[str], AbstractContextManager[Any]]
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
        # what failed transactions have cost, in words
        self._lost: list[str] = []
        # why the database could not be reached again; then no further venue is begun
        self._unreachable: psycopg.OperationalError | None = None

    def begin(self) -> None:
        """Open or join the round; see what it lacks.

        What failed for good is left alone, unless somebody has cleared the run since.
        """
        run, number = self._run, self._batch.number
        self.round = history.open_round(self.connection, run, number, self._clear_number)
        ended = history.last_attempts(self.connection, run, number)
        done = []
        queues: tuple[list[VenueAttempt], ...] = ([], [], [])
        for venue in self._batch.venues:
            last = ended.get(venue.venue_id)
            if last is not None and last.ended_well:
                done.append(venue)
                continue
            if last and last.permanent and last.clear_number >= self._clear_number:
                self._tell_failed(venue, PermanentError(last.error or "failed for good"))
                continue
            attempt = self._attempt(venue)
            # one that has killed its worker, or hung, must not keep others from their end again
            attempt.is_alone = last is not None and not last.is_common
            where = 0 if last is None or not attempt.is_alone else 2 if last.alone else 1
            queues[where].append(attempt)
        self._queue = deque(chain(*queues))
        if self._try_number > 1 and not run.dry_run:
            self._give_back_left_leases(done)

    def preview(self) -> None:
        """Have the job say of each venue what would change; nobody is kept from it."""
        while self._queue:
            attempt = self._queue.popleft()
            self._at_work = [attempt]
            with self.around(attempt.venue.name):
                try:
                    self._reconnect_if_closed()
                    result = preview_venue(self.connection, self._job, attempt)
                except Exception as error:  # noqa: BLE001  told, and no other venue is stopped
                    self._fail([attempt], error)
                else:
                    self._end(attempt, result)

    def do(self) -> None:
        """Work until no venue is left; those that others hold come last."""
        while self._queue:
            if self._unreachable is not None:
                self._fail(list(self._queue), self._unreachable)
                self._queue.clear()
                break
            together = self._next()
            try:
                held = self._keeper.take({a.venue.venue_id: a.holder for a in together})
            except TransientError as error:
                self._fail([*together, *self._queue], error)
                self._queue.clear()
                break
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
            if self._at_work:
                self._reconnect_if_closed()
                attempts.close_failed(self.connection, self._at_work, stop)
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
        together = next(
            groups.cut(self._queue, lambda a: a.venue, lambda a: None if a.is_alone else "together")
        )
        for _ in together:
            self._queue.popleft()
        return together

    def _in_groups(self, together: Sequence[VenueAttempt]) -> Iterator[list[VenueAttempt]]:
        """Cut venues into those that may share a transaction."""

        def alike(attempt: VenueAttempt) -> Hashable | None:
            if attempt.is_alone or not takes_groups(self._job, 0):
                return None
            return groups.likeness(attempt.venue, self._settings.venues)

        return groups.cut(together, lambda attempt: attempt.venue, alike)

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
            [attempt],
            TransientError(f"its lease is held by {who}: waited {limit.total_seconds():.0f} s"),
        )

    def _work_on(self, together: list[VenueAttempt]) -> None:
        """Do venues whose leases are ours."""
        self._at_work += together
        try:
            self._reconnect_if_closed()
            attempts.draw_tokens(self.connection, self._job.name, together)
            still = self._keeper.are_held({a.venue.venue_id: a.holder for a in together})
            mine = [attempt for attempt in together if still[attempt.venue.venue_id]]
            for attempt in together:
                if not still[attempt.venue.venue_id]:
                    # it ran out before the token was drawn: from the start
                    self._leave(attempt)
                    self._keeper.give_back([attempt.venue.venue_id])
                    attempt.start_over()
                    self._queue.append(attempt)
            if mine:
                attempts.open_rows(self.connection, mine)
        except psycopg.errors.LockNotAvailable as error:
            if len(together) == 1:
                self._fail(together, error)
            else:
                # a transaction on one of these venues goes on for too long: find out which
                mine = [attempt for attempt in together if attempt in self._at_work]
                for attempt in mine:
                    self._leave(attempt)
                for attempt in mine:
                    self._work_on([attempt])
        except Exception as error:  # noqa: BLE001  told for each venue, and no other is stopped
            self._fail([a for a in together if a in self._at_work], error)
        else:
            self._work_in_groups(self._in_groups(mine))
        # those that were done early are held on to: it is a second or two, and one round trip
        self._give_back_ended(together)

    def _work_in_groups(self, cut: Iterable[list[VenueAttempt]]) -> None:
        """Do groups, each with what its transaction leaves undone before the next."""
        left = deque(cut)
        while left:
            group = left.popleft()
            with self.around(label(_venues(group))):
                undone = self._transact(group, others_wait=bool(left))
            # not in the fold, where nobody would see it
            for line in self._lost:
                log.warning(line)
            self._lost.clear()
            left.extendleft(reversed(undone))

    def _transact(
        self, group: list[VenueAttempt], *, others_wait: bool
    ) -> list[list[VenueAttempt]]:
        """Do the next step of a group; return the groups that are left of it, in their order."""
        limit = None
        if others_wait or self._queue or len(group) > 1:
            patience = max(attempt.patience for attempt in group)
            limit = patience * groups.limit(attempt.venue for attempt in group)
            limit = min(limit, timedelta(minutes=self._settings.timeout_minutes))
        began = time.monotonic()
        try:
            done = self._do_step(group, limit)
        except Exception as error:  # noqa: BLE001  told, and no other venue is stopped
            return self._after(error, group, limit, time.monotonic() - began)
        seconds = time.monotonic() - began
        for attempt, _ in done.ongoing:
            attempt.seconds += seconds / len(done.ongoing)
        for attempt, result in done.ended:
            self._end(attempt, result)
        for attempt, lost in done.lost:
            self._fail([attempt], lost)
        return [*self._go_on([attempt for attempt, _ in done.ongoing]), *([a] for a in done.apart)]

    def _do_step(self, group: list[VenueAttempt], limit: timedelta | None) -> Committed:
        """Do a step; a group that was in another's way once more."""

        def check_lease(attempt: VenueAttempt) -> None:
            self._keeper.check(attempt.venue.venue_id)

        self._reconnect_if_closed()
        try:
            return do_step(self.connection, self._job, group, check_lease, limit)
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected) as error:
            if len(group) == 1:
                raise
            log.warning("%s: once more: %s", label(_venues(group)), describe(error))
        return do_step(self.connection, self._job, group, check_lease, limit)

    def _go_on(self, ongoing: list[VenueAttempt]) -> list[list[VenueAttempt]]:
        """Keep a group together that has a step before it which takes groups."""
        if not ongoing:
            return []
        progress = ongoing[0].progress
        if progress is not None and takes_groups(self._job, progress.step):
            return [ongoing]
        return [[attempt] for attempt in ongoing]

    def _after(
        self,
        error: Exception,
        group: list[VenueAttempt],
        limit: timedelta | None,
        seconds: float,
    ) -> list[list[VenueAttempt]]:
        """Find out which venue of a group has failed it, of which nothing was written."""
        bad = [a for a in group if a.venue.venue_id == getattr(error, "venue_id", None)]
        if len(group) > 1 and bad:
            self._fail(bad, error)
            return [[attempt for attempt in group if attempt not in bad]]
        if len(group) > 1 and groups.may_be_one_venues(error):
            self._note_lost(group, error, limit, seconds, "each is done by itself now")
            return [[attempt] for attempt in group]
        if limit is not None and isinstance(error, psycopg.errors.QueryCanceled):
            self._note_lost(group, error, limit, seconds, "it is done after all others")
            self._put_back(group, error)
            return []
        self._fail(group, error)
        return []

    def _put_back(self, group: list[VenueAttempt], error: Exception) -> None:
        """Begin attempts anew, behind all others; nobody waits for their leases meanwhile."""
        self._close(group, error)
        for attempt in group:
            self._leave(attempt)
            attempt.start_over()
            attempt.is_alone = True
            attempt.patience *= groups.PATIENCE_GROWS
            self._queue.append(attempt)

    def _note_lost(
        self,
        group: list[VenueAttempt],
        error: Exception,
        limit: timedelta | None,
        seconds: float,
        then: str,
    ) -> None:
        """Keep what a failure has cost, and what is done about it, for the log."""
        if limit is not None and isinstance(error, psycopg.errors.QueryCanceled):
            told = f"cut: a statement took longer than {limit.total_seconds():g} s"
        else:
            told = describe(error)
        self._lost.append(f"{label(_venues(group))}: {seconds:.1f} s lost, {then}: {told}")

    def _leave(self, attempt: VenueAttempt) -> None:
        self._at_work = [other for other in self._at_work if other is not attempt]

    def _give_back_ended(self, together: Sequence[VenueAttempt]) -> None:
        kept = {attempt.venue.venue_id for attempt in self._at_work}
        self._keeper.give_back([a.venue.venue_id for a in together if a.venue.venue_id not in kept])

    def _end(self, attempt: VenueAttempt, result: VenueResult) -> None:
        self._tell(attempt.venue, f"{result.outcome}: {_in_words(result)}")
        self._leave(attempt)

    def _fail(self, failed: Sequence[VenueAttempt], error: Exception) -> None:
        """Close the attempts' rows and tell.

        A row that has ended well is its attempt's end: the answer to the COMMIT was lost.
        """
        ended = self._close(failed, error)
        fault = in_words(error) if isinstance(error, psycopg.Error) else error
        for attempt in failed:
            if attempt.row in ended:
                self._end(attempt, ended[attempt.row])
            else:
                self._tell_failed(attempt.venue, fault)
                self._leave(attempt)

    def _close(self, failed: Sequence[VenueAttempt], error: Exception) -> dict[int, VenueResult]:
        """Close the attempts' rows, where history can be reached; return those that ended well."""
        try:
            self._reconnect_if_closed()
            return attempts.close_failed(self.connection, failed, error)
        except Exception as unnoted:  # noqa: BLE001  history is one thing, the next venue another
            names = label(_venues(failed))
            log.warning("%s: not noted in history: %s", names, describe(unnoted))
            return {}

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


def _venues(group: Sequence[VenueAttempt]) -> list[Venue]:
    return [attempt.venue for attempt in group]


def _in_words(result: VenueResult) -> str:
    if result.outcome is Outcome.SKIPPED:
        return result.reason or "nothing to do"
    left_out = "".join(f", {count:,} {kind}" for kind, count in sorted(result.left_out.items()))
    reason = f"; {result.reason}" if result.reason else ""
    return (
        f"{result.rows_read:,} rows read, {result.rows_written:,} written, "
        f"{result.rows_unchanged:,} unchanged, {result.rows_removed:,} removed{left_out}{reason}"
    )
