"""Processes that stop before every atomic move, each a greenlet that runs the harness's own code.

A process is what Airflow starts: a try of plan, of a batch, of finish. It runs in the test's one
thread; before each Redis command, each statement outside a transaction, the first statement of a
transaction and each step's write and commit it hands control back, saying what it does next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Protocol
from uuid import UUID

import psycopg
import redis
from greenlet import getcurrent, greenlet
from pydantic import Field

from venue_analytics.harness import (
    SHAPES_RESULTS,
    Grouped,
    GroupRun,
    Job,
    JobSettings,
    PermanentError,
    Venue,
    VenueResult,
    VenueRun,
    leases,
    process,
)
from venue_analytics.harness.attempts import VenueAttempt
from venue_analytics.harness.leases import LeaseKeeper, Leases
from venue_analytics.harness.steps import Committed

#: Renewals of leases are moves, and no thread makes any.
NEVER = timedelta(days=1)
TENANT = UUID("00000000-0000-4000-8000-00000000000a")
VENUES = tuple(
    Venue(UUID(f"10000000-0000-4000-8000-00000000000{number}"), TENANT, f"v{number}")
    for number in range(2)
)
NAMES = {venue.venue_id: venue.name for venue in VENUES}

#: The statements before which a process stops, unless a transaction has begun its work already.
STATEMENTS = {
    "load_run": "reads its plan",
    "open_round": "opens or joins the round",
    "last_attempts": "reads how its venues ended",
    "draw_tokens": "draws a token",
    "open_venue_runs": "opens a row",
    "enter": "enters",
    "end_failed": "closes its row",
    "end_well": "closes its row",
    "end_round_well": "notes that the round ended well",
    "left_running": "reads the rows left running",
    "raise_fence": "closes a row left running",
    "last_round": "stores the plan",
}
#: What a process that a venue kills does next: nothing but that.
DIES = "dies"
#: Those that lock fences.
LOCKING = ("draw_tokens", "enter", "raise_fence")

RESULTS = """
CREATE TABLE results (
    job text, venue_id uuid, step integer, as_of timestamptz, rules_hash text, token bigint,
    plan_number bigint, forced boolean, PRIMARY KEY (job, venue_id, step)
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE ON results TO analytics_jobs;
"""
WRITE = """
INSERT INTO results
SELECT r.job, r.venue_id, %(step)s, r.as_of, r.rules_hash, %(token)s, r.plan_number, %(forced)s
FROM jobs.venue_run AS r WHERE r.id = %(row)s
ON CONFLICT (job, venue_id, step) DO UPDATE SET
    as_of = excluded.as_of, rules_hash = excluded.rules_hash, token = excluded.token,
    plan_number = excluded.plan_number, forced = excluded.forced
"""


class Killed(BaseException):
    """SIGKILL. Nothing runs after it: what Python still unwinds reaches no server."""


class BlockedError(BaseException):
    """A move waited for a lock: it should not have been offered."""


@dataclass(frozen=True)
class Pause:
    """What a process does next.

    Attributes:
        move: in words.
        venues: whose fences or leases it touches.
        kind: of a statement its name; else redis, writes, commits, fails, dies, waits, begins.
        locks: whether it locks the fences of these venues.
    """

    move: str
    venues: tuple[UUID, ...] = ()
    kind: str = "begins"
    locks: bool = False


class Strand(greenlet):
    """A process's main thread, or its renewal thread."""

    def __init__(self, owner: Process, body: Callable[[], None], move: str = "begins") -> None:
        super().__init__(body)
        self.owner = owner
        self.pause = Pause(move)

    def stop_before(self, pause: Pause) -> None:
        """Hand control back; goes on when resumed, or with the exception thrown in."""
        if self.owner.is_killed:
            raise Killed
        self.pause = pause
        self.parent.switch()


class Process:
    """A try of plan, of a batch, or of finish.

    Attributes:
        run: the name of its run.
        batch: the number of its batch, or "plan" or "finish".
        number: of the try.
        speed: how often it is given its turn.
        clear_number: the run's, when it began.
        generation: how often its batch's success had been cleared, as far as history knew.
        at_clear: the generation that Airflow knew when it began.
        connection: the one it has open.
        work: the harness's state of a batch's try.
        group: the attempts that it is at.
        entered: those of them that have found work to do.
        draws_in_vain: tokens drawn since a row was opened.
        seen: the leases when it began to wait.
        clock: its monotonic clock, in seconds.
        may_wait: whether a lock may run into its timeout.
        is_stopped: whether SIGTERM was sent.
    """

    def __init__(self, run: str, batch: int | str, number: int) -> None:
        self.run, self.batch, self.number = run, batch, number
        self.main: Strand
        self.renewal: Strand | None = None
        self.speed = 1.0
        self.clear_number = self.at_clear = self.generation = 0
        self.connection: WatchedConnection | None = None
        self.work: WatchedWork | None = None
        self.group: list[VenueAttempt] = []
        self.entered: set[UUID] = set()
        self.draws_in_vain = 0
        self.seen: Mapping[UUID, str | None] = {}
        self.clock = 0.0
        self.is_killed = self.may_wait = self.is_stopped = False
        self.end: str | None = None

    def __str__(self) -> str:
        part = f"batch {self.batch}" if isinstance(self.batch, int) else self.batch
        return f"{self.run} {part} try {self.number}"

    @property
    def keeper(self) -> LeaseKeeper | None:
        """What renews its leases."""
        return self.work._keeper if self.work else None

    @property
    def kept(self) -> dict[UUID, leases.Holder]:
        """The leases that it believes to have."""
        return self.keeper._kept if self.keeper else {}

    def at_work(self) -> list[VenueAttempt]:
        """Give the attempts that have a lease and have not ended."""
        return list(self.work._at_work) if self.work else []


def current() -> Strand | None:
    """Give the strand that runs; None outside of any process."""
    strand = getcurrent()
    return strand if isinstance(strand, Strand) else None


def stop_before(
    move: str, venues: tuple[UUID, ...] = (), *, kind: str, locks: bool = False
) -> None:
    """Stop the process that runs, if one does, before its next move."""
    if strand := current():
        names = " and ".join(NAMES[venue_id] for venue_id in venues)
        strand.stop_before(Pause(f"{move} {names}".strip(), venues, kind, locks))


class StatementNames(Protocol):
    """Says which of the harness's statements a text is."""

    def __call__(self, text: str) -> str | None: ...


class WatchedConnection(psycopg.Connection):
    """A process's connection; closed while idle, it serves the next one.

    Attributes:
        owner: the process that has it.
        venue_ids: whose fences its open transaction has locked.
        lose_answer: the next commit happens, and the connection breaks before the answer comes.
    """

    owner: Process
    pool: list[WatchedConnection]
    name_of: StatementNames
    venue_ids: tuple[UUID, ...] = ()
    lose_answer = False
    is_spare = False
    _depth = 0
    _is_untouched = False

    @property
    def closed(self) -> bool:
        return self.is_spare or super().closed

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._depth > 0

    def close(self) -> None:
        if self.closed or self.owner.is_killed:
            return
        self.owner.connection = None
        if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            self.is_spare = True
            self.pool.append(self)
        else:
            self.cut()

    def cut(self) -> None:
        """Close it for good."""
        self.is_spare = False
        super().close()

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        if not self.owner.is_killed:
            super().cancel_safe(timeout=timeout)

    def before(self, name: str, parameters: Any) -> None:
        """Stop before a statement, if it is the next move."""
        if self._depth and not self._is_untouched:
            return
        self._is_untouched = False
        if move := STATEMENTS.get(name):
            one = parameters.get("venue_id")
            venues = tuple(parameters.get("venue_ids") or ([one] if one else []))
            stop_before(move, venues, kind=name, locks=name in LOCKING)

    def after(self, name: str, parameters: Any) -> None:
        """Note the fences that are locked; lose the answer if that was said."""
        if name == "enter":
            self.venue_ids = tuple(parameters["venue_ids"])
        if self._depth == 0:
            self._lose_answer()

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        block = psycopg.Transaction(self, savepoint_name, force_rollback)
        block.__enter__()
        self._depth += 1
        if self._depth == 1:
            self._is_untouched = True
        try:
            yield block
        except BaseException as error:
            if not self.owner.is_killed:
                self._leave()
                block.__exit__(type(error), error, error.__traceback__)
            raise
        self._leave()
        block.__exit__(None, None, None)
        if self._depth == 0:
            self._lose_answer()

    def _leave(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.venue_ids = ()

    def _lose_answer(self) -> None:
        if self.lose_answer:
            self.cut()
            raise psycopg.OperationalError("the connection broke before the answer came")


class WatchedCursor(psycopg.Cursor):
    """Tells its connection of the harness's statements."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> WatchedCursor:
        connection: Any = self.connection
        if connection.owner.is_killed:
            raise Killed
        name = connection.name_of(query) or ""
        connection.before(name, params)
        try:
            super().execute(query, params, **options)
        except psycopg.errors.LockNotAvailable as error:
            if not connection.owner.may_wait:
                raise BlockedError(f"{connection.owner} waits in {name}") from error
            raise
        connection.after(name, params)
        return self


class WatchedLeases(Leases):
    """Leases that stop their process before each command."""

    def _eval(self, script: str, arguments: Mapping[UUID, tuple[Any, ...]]) -> dict[UUID, Any]:
        if arguments:
            moves = {leases.TAKE: "asks for", leases.RENEW: "renews", leases.RELEASE: "gives back"}
            stop_before(f"{moves[script]} the lease of", tuple(arguments), kind="redis")
        return super()._eval(script, arguments)

    def _get(self, venue_ids: Any) -> dict[UUID, str | None]:
        ids = tuple(venue_ids)
        stop_before("looks at the lease of", ids, kind="redis")
        return super()._get(ids)


class UnwatchedLeases(Leases):
    """What the test itself asks and does."""

    def texts(self, client: redis.Redis) -> dict[UUID, str | None]:
        """Give the values of all leases."""
        values = client.mget([self._key(venue.venue_id) for venue in VENUES])
        return {
            venue.venue_id: None if value is None else value.decode()
            for venue, value in zip(VENUES, values, strict=True)
        }

    def forget(self, client: redis.Redis, venue_id: UUID) -> None:
        """Let a lease run out."""
        client.delete(self._key(venue_id))


class WatchedWork(process._BatchWork):
    """A batch's try that its process knows of."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.owner = _running().owner
        self.owner.work = self

    def _do_step(self, group: list[VenueAttempt], limit: timedelta | None) -> Committed:
        self.owner.group, self.owner.entered = group, set()
        return super()._do_step(group, limit)


def watched_clock() -> SimpleNamespace:
    """Give a `time` whose monotonic clock is the process's own and stands still."""

    def sleep(_seconds: float) -> None:
        stop_before("looks again whether the lease is free", kind="waits")

    def monotonic() -> float:
        return _running().owner.clock

    return SimpleNamespace(sleep=sleep, monotonic=monotonic)


class Rules(JobSettings):
    """Settings whose one rule shapes the results."""

    rules: int = Field(
        1, description="Which rules.", json_schema_extra={**SHAPES_RESULTS, "unit": "number"}
    )


def toy_job(
    name: str,
    steps: int,
    *,
    grouped: bool = True,
    fails: tuple[int, ...] = (),
    kills: tuple[int, ...] = (),
) -> Job[Rules]:
    """A job whose every step writes a row a venue: which night, by which rules, with which token.

    Args:
        name: of the job.
        steps: how many.
        grouped: whether they take groups.
        fails: venues whose data are always bad.
        kills: venues that always kill their worker.
    """
    bad = {VENUES[number].venue_id: "is bad data of" for number in fails}
    bad |= {VENUES[number].venue_id: "dies at" for number in kills}

    def of_one(do: Grouped[Rules]) -> Callable[[VenueRun[Rules]], VenueResult | None]:
        def step(run: VenueRun[Rules]) -> VenueResult | None:
            group = GroupRun(
                run.connection,
                run.venue.tenant_id,
                (run.venue,),
                run.settings,
                run.as_of,
                run.force,
                lambda *_: None,
            )
            results = do.do(group)
            return None if results is None else results[run.venue.venue_id]

        return step

    made = [_step(number, is_last=number == steps - 1, bad=bad) for number in range(steps)]
    return Job(
        name,
        Rules,
        tuple(made if grouped else map(of_one, made)),
        remove=lambda *_: 0,
        venues_held=lambda *_: [],
    )


def _step(number: int, *, is_last: bool, bad: Mapping[UUID, str]) -> Grouped[Rules]:
    def write(run: GroupRun[Rules]) -> dict[UUID, VenueResult] | None:
        venues, owner = tuple(venue.venue_id for venue in run.venues), _running().owner
        stop_before(f"writes step {number} of", venues, kind="writes")
        for attempt in owner.group:
            if attempt.venue.venue_id in venues:
                run.connection.execute(
                    WRITE,
                    {
                        "step": number,
                        "token": attempt.token,
                        "row": attempt.row,
                        "forced": run.force,
                    },
                )
        for venue_id in venues:
            if told := bad.get(venue_id):
                stop_before(told, (venue_id,), kind=DIES if told.startswith("dies") else "fails")
                raise PermanentError("bad data")
        stop_before(f"commits step {number} of", venues, kind="commits")
        return {venue_id: VenueResult() for venue_id in venues} if is_last else None

    return Grouped(write)


def _running() -> Strand:
    strand = current()
    if strand is None:
        raise BlockedError("only a process of the world may do this")
    return strand
