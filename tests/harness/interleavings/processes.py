"""Processes that stop before every atomic move; each is a greenlet with the harness's own code.

A process is what Airflow starts: a try of plan, of a batch or of finish. It runs in the test's only
thread. It yields control, with its next move, before each Redis command, each statement outside a
transaction, the first statement of a transaction, and each step's write and commit.
"""

from __future__ import annotations

from collections import Counter
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
    Action,
    Effect,
    Grouped,
    GroupRun,
    Job,
    PermanentError,
    Unit,
    UnitResult,
    UnitRun,
    VenueSettings,
    leases,
    process,
)
from venue_analytics.harness.attempts import UnitAttempt
from venue_analytics.harness.leases import LeaseKeeper, Leases
from venue_analytics.harness.steps import Committed

#: Renewals of leases are moves; no thread makes them.
NEVER = timedelta(days=1)
TENANT = UUID("00000000-0000-4000-8000-00000000000a")
UNITS = tuple(
    Unit(UUID(f"10000000-0000-4000-8000-00000000000{number}"), TENANT, f"v{number}")
    for number in range(2)
)
NAMES = {unit.id: unit.name for unit in UNITS}

#: The statements before which a process stops, unless its transaction has already begun its work.
STATEMENTS = {
    "load_run": "reads its plan",
    "open_round": "opens or joins the round",
    "last_attempts": "reads how its units ended",
    "draw_tokens": "draws a token",
    "open_unit_runs": "opens a row",
    "enter": "enters",
    "end_failed": "closes its row",
    "end_well": "closes its row",
    "end_round_well": "notes that the round ended well",
    "left_running": "reads the rows left running",
    "raise_fence": "closes a row left running",
    "last_round": "stores the plan",
    "claim_action": "claims an action of",
}
#: The statements before which it stops even then.
MIDWAY = ("claim_action",)
#: The kind of the last move of a process that a unit kills.
DIES = "dies"
#: The statements that lock fences.
LOCKING = ("draw_tokens", "enter", "raise_fence")

RESULTS = """
CREATE TABLE results (
    job text, unit_id uuid, step integer, as_of timestamptz, rules_hash text, token bigint,
    for_plan bigint, forced boolean, PRIMARY KEY (job, unit_id, step)
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE ON results TO analytics_jobs;
"""
WRITE = """
INSERT INTO results
SELECT r.job, r.unit_id, %(step)s, r.as_of, r.rules_hash, %(token)s, r.for_plan, %(forced)s
FROM jobs.unit_run AS r WHERE r.id = %(row)s
ON CONFLICT (job, unit_id, step) DO UPDATE SET
    as_of = excluded.as_of, rules_hash = excluded.rules_hash, token = excluded.token,
    for_plan = excluded.for_plan, forced = excluded.forced
"""


class Killed(BaseException):
    """SIGKILL. Nothing runs after it: whatever Python still unwinds reaches no server."""


class BlockedError(BaseException):
    """A move waited for a lock, so it should not have been offered."""


@dataclass(frozen=True)
class Pause:
    """The next move of a process.

    Attributes:
        move: its description.
        units: the units whose fences or leases it touches.
        kind: a statement's name, or redis, writes, commits, fails, dies, waits, begins, reports;
            for an effect acts or records.
        locks: whether it locks the fences of these units.
        action: the key of the action that it performs or records.
    """

    move: str
    units: tuple[UUID, ...] = ()
    kind: str = "begins"
    locks: bool = False
    action: str = ""


class Strand(greenlet):
    """A process's main thread, or its renewal thread."""

    def __init__(self, owner: Process, body: Callable[[], None], move: str = "begins") -> None:
        super().__init__(body)
        self.owner = owner
        self.pause = Pause(move)

    def stop_before(self, pause: Pause) -> None:
        """Yield control; return when resumed, or raise the exception that was thrown in."""
        if self.owner.is_killed:
            raise Killed
        self.pause = pause
        self.parent.switch()


class Process:
    """A try of plan, of a batch, or of finish.

    Attributes:
        run: the name of its run.
        batch: the number of its batch, or "plan" or "finish".
        number: the number of the try.
        speed: how often it gets its turn.
        clear_number: the run's clear number when it began.
        generation: how often its batch's success had been cleared, according to history.
        at_clear: the generation that Airflow knew when it began.
        connection: its open connection.
        work: the harness's state of a batch's try.
        group: the attempts that it works on.
        entered: the units of those attempts that have found work to do.
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
        self.group: list[UnitAttempt] = []
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
        """The keeper of its leases."""
        return self.work.keeper if self.work else None

    @property
    def kept(self) -> dict[UUID, leases.Holder]:
        """The leases that it believes it holds."""
        return self.keeper._kept if self.keeper else {}

    def at_work(self) -> list[UnitAttempt]:
        """Return the attempts that have a lease and have not ended."""
        return list(self.work.at_work) if self.work else []


def current() -> Strand | None:
    """Return the strand that runs; None outside any process."""
    strand = getcurrent()
    return strand if isinstance(strand, Strand) else None


def stop_before(
    move: str,
    units: tuple[UUID, ...] = (),
    *,
    kind: str,
    locks: bool = False,
    action: str = "",
) -> None:
    """Stop the current process, if there is one, before its next move."""
    if strand := current():
        names = " and ".join(NAMES[unit_id] for unit_id in units)
        strand.stop_before(Pause(f"{move} {names}".strip(), units, kind, locks, action))


class StatementNames(Protocol):
    """Returns the name of the harness's statement that has a text."""

    def __call__(self, text: str) -> str | None: ...


class WatchedConnection(psycopg.Connection):
    """A process's connection; once closed while idle, it serves the next process.

    Attributes:
        owner: the process that uses it.
        unit_ids: the units whose fences its open transaction has locked.
        lose_answer: whether the connection breaks after the next commit, before its answer.
    """

    owner: Process
    pool: list[WatchedConnection]
    name_of: StatementNames
    unit_ids: tuple[UUID, ...] = ()
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
        if self._depth and not self._is_untouched and name not in MIDWAY:
            return
        self._is_untouched = False
        if move := STATEMENTS.get(name):
            one = parameters.get("unit_id")
            units = tuple(parameters.get("unit_ids") or ([one] if one else []))
            stop_before(move, units, kind=name, locks=name in LOCKING)

    def after(self, name: str, parameters: Any) -> None:
        """Record the locked fences; lose the answer if that is due."""
        if name == "enter":
            self.unit_ids = tuple(parameters["unit_ids"])
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
            self.unit_ids = ()

    def _lose_answer(self) -> None:
        if self.lose_answer:
            self.cut()
            raise psycopg.OperationalError("the connection broke before the answer came")


class WatchedCursor(psycopg.Cursor):
    """A cursor that notifies its connection of the harness's statements."""

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
            moves = {leases.TAKE: "asks for", leases.RENEW: "renews", leases.RELEASE: "releases"}
            stop_before(f"{moves[script]} the lease of", tuple(arguments), kind="redis")
        return super()._eval(script, arguments)

    def _get(self, unit_ids: Any) -> dict[UUID, str | None]:
        ids = tuple(unit_ids)
        stop_before("looks at the lease of", ids, kind="redis")
        return super()._get(ids)


class UnwatchedLeases(Leases):
    """The leases as the test itself reads and changes them."""

    def texts(self, client: redis.Redis) -> dict[UUID, str | None]:
        """Return the values of all leases."""
        values = client.mget([self._key(unit.id) for unit in UNITS])
        return {
            unit.id: None if value is None else value.decode()
            for unit, value in zip(UNITS, values, strict=True)
        }

    def forget(self, client: redis.Redis, unit_id: UUID) -> None:
        """Let a lease expire."""
        client.delete(self._key(unit_id))


class WatchedWork(process._BatchWork):
    """A batch's try that is known to its process."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.owner = _running().owner
        self.owner.work = self

    def _do_step(self, group: list[UnitAttempt], limit: timedelta | None) -> Committed:
        self.owner.group, self.owner.entered = group, set()
        return super()._do_step(group, limit)


def watched_clock() -> SimpleNamespace:
    """Return a `time` whose monotonic clock belongs to the process and stands still."""

    def sleep(_seconds: float) -> None:
        stop_before("looks again whether the lease is free", kind="waits")

    def monotonic() -> float:
        return _running().owner.clock

    return SimpleNamespace(sleep=sleep, monotonic=monotonic)


class Rules(VenueSettings):
    """Settings with one rule that shapes the results."""

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
    actions: int = 0,
    performed: Counter[tuple[UUID, str]] | None = None,
) -> Job[Rules]:
    """Make a job whose steps each write one row per unit: the night, the rules and the token.

    It may perform actions outside the database before its last step.

    Args:
        name: the job's name.
        steps: the number of its steps.
        grouped: whether its steps take groups.
        fails: units whose data are always bad.
        kills: units that always kill their worker.
        actions: how many it performs for a unit, the same in every night.
        performed: counts the actions; None without them.
    """
    bad = {UNITS[number].id: "is bad data of" for number in fails}
    bad |= {UNITS[number].id: "dies at" for number in kills}

    def of_one(do: Grouped[Rules]) -> Callable[[UnitRun[Rules]], UnitResult | None]:
        def step(run: UnitRun[Rules]) -> UnitResult | None:
            group = GroupRun(
                run.connection,
                run.unit.tenant_id,
                (run.unit,),
                run.settings,
                run.parameters,
                run.as_of,
                run.force,
                lambda *_: None,
            )
            results = do.do(group)
            return None if results is None else results[run.unit.id]

        return step

    made = [_step(number, is_last=number == steps - 1, bad=bad) for number in range(steps)]
    named: dict[str, Any] = {
        f"step {n}": step if grouped else of_one(step) for n, step in enumerate(made)
    }
    if performed is not None:
        last = named.popitem()
        named |= {"act": _effect(actions, performed), **dict([last])}
    return Job(
        name,
        Rules,
        named,
        remove=lambda *_: 0,
        units_held=lambda *_: [],
    )


def _step(number: int, *, is_last: bool, bad: Mapping[UUID, str]) -> Grouped[Rules]:
    def write(run: GroupRun[Rules]) -> dict[UUID, UnitResult] | None:
        units, owner = tuple(unit.id for unit in run.units), _running().owner
        stop_before(f"writes step {number} of", units, kind="writes")
        for attempt in owner.group:
            if attempt.unit.id in units:
                run.connection.execute(
                    WRITE,
                    {
                        "step": number,
                        "token": attempt.token,
                        "row": attempt.row,
                        "forced": run.force,
                    },
                )
        for unit_id in units:
            if move := bad.get(unit_id):
                stop_before(move, (unit_id,), kind=DIES if move.startswith("dies") else "fails")
                raise PermanentError("bad data")
        stop_before(f"commits step {number} of", units, kind="commits")
        return {unit_id: UnitResult() for unit_id in units} if is_last else None

    return Grouped(write)


def _effect(actions: int, performed: Counter[tuple[UUID, str]]) -> Effect[Rules]:
    def due(run: UnitRun[Rules]) -> list[Action]:
        return [Action(key, {"unit": str(run.unit.id)}) for key in keys(actions)]

    def act(action: Action) -> None:
        unit_id = UUID(action.payload["unit"])
        stop_before(f"performs {action.key} of", (unit_id,), kind="acts", action=action.key)
        performed[unit_id, action.key] += 1
        stop_before(f"records {action.key} of", (unit_id,), kind="records", action=action.key)

    return Effect(due, act)


def keys(actions: int) -> list[str]:
    """Return the keys of a unit's actions."""
    return [f"action {number}" for number in range(actions)]


def _running() -> Strand:
    strand = current()
    if strand is None:
        raise BlockedError("only a process of a world may do this")
    return strand
