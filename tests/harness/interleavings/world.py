"""A world: runs, their processes, Airflow, two servers, faults and clicks, one move at a time.

Airflow is a small state machine, as in the protocol's model: the states of plan, batches and
finish, their tries, and the clear number. Everything else is the harness itself, on real servers.
Chance picks the next move; a move that would wait for a lock is not offered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count, product
from typing import Protocol
from uuid import UUID

import psycopg
import redis
from tests.harness.interleavings import processes
from tests.harness.interleavings.processes import (
    NAMES,
    UNITS,
    BlockedError,
    Killed,
    Process,
    Rules,
    Strand,
    UnwatchedLeases,
    WatchedConnection,
    WatchedLeases,
)
from tests.harness.interleavings.properties import Properties, State
from tests.harness.interleavings.scenarios import Run, Scenario

from venue_analytics.harness import AnalyticsError, PermanentError, TransientError, history
from venue_analytics.harness import finish as finish_module
from venue_analytics.harness import plan as plan_module
from venue_analytics.harness import process as process_module
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.history import RunKey
from venue_analytics.harness.interrupts import Stopped
from venue_analytics.harness.request import RunRequest

#: After this many moves there are no more faults and clicks; after this many all must be over.
QUIET_AFTER = 250
OVER_AFTER = 2000
#: How often a process may start a unit over, in addition to once for each fault and click.
STARTED_OVER = 1
#: How many of 1,000 moves are clicks, while any are left.
CLICK_RATE = 60
#: Moves that change neither server: a step's write is not yet committed, and an action is outside.
TOUCH_NOTHING = ("begins", "reports", "waits", "writes", "acts", "load_run", "left_running")
#: Some processes are slow, some almost stand still; PACES of 1,000 moves change a speed.
SPEEDS = (1.0, 1.0, 0.05, 0.005)
PACES = 100

_episodes = count(1)


class Chance(Protocol):
    """Chooses a number from 0 up to but not including `limit`; 0 is the simplest."""

    def __call__(self, limit: int) -> int: ...


@dataclass(frozen=True)
class Servers:
    """The servers that all processes share.

    Attributes:
        observer: a connection for reading that bypasses row-level security.
        connect: opens a connection as jobs do.
        pool: connections that are open and idle.
        client: the client of Redis.
    """

    observer: psycopg.Connection
    connect: Callable[[], WatchedConnection]
    pool: list[WatchedConnection]
    client: redis.Redis


@dataclass
class BatchState:
    """A mapped task in Airflow: n(ot started), r(unning), s(uccess) or f(ailed).

    Attributes:
        state: its state.
        tries: its tries so far.
        max_tries: how many tries it may have.
        generation: how often its success was cleared.
        marks: the newest token of each unit when its success was last cleared.
    """

    max_tries: int
    state: str = "n"
    tries: int = 0
    generation: int = 0
    marks: dict[UUID, int] = field(default_factory=dict)


@dataclass
class RunState:
    """A run in Airflow; finish is G(reen) or R(ed) at the end.

    Attributes:
        run: the run in the scenario.
        rules: the rules that the Variable has now.
        batches: the mapped tasks.
        plan: the state of plan.
        plan_tries: the tries of plan so far.
        finish: the state of finish.
        clears: the clear number.
    """

    run: Run
    rules: int
    batches: list[BatchState]
    plan: str = "n"
    plan_tries: int = 0
    finish: str = "n"
    clears: int = 0

    @property
    def is_over(self) -> bool:
        """Whether Airflow has ended the run."""
        return self.finish in "GR"


@dataclass(frozen=True)
class Move:
    """A move that may happen next."""

    text: str
    act: Callable[[], None]
    weight: float = 1.0


class World:
    """One episode of a scenario."""

    def __init__(
        self,
        scenario: Scenario,
        servers: Servers,
        chance: Chance,
        *,
        only: frozenset[str] | None = None,
        clear_number_of: Callable[[RunState, BatchState], int] = lambda run, _: run.clears,
    ) -> None:
        self.scenario, self.servers, self.chance = scenario, servers, chance
        self.trace: list[str] = []
        self.moves_made = 0
        self.faults = self.clicks = 0
        # how often each unit's actions were performed
        self.performed: Counter[tuple[UUID, str]] = Counter()
        size = "small" if scenario.small else "large"
        self.job = processes.toy_job(
            f"toy_{size}_{next(_episodes)}",
            scenario.steps,
            grouped=scenario.grouped,
            fails=scenario.fails,
            kills=scenario.kills,
            actions=scenario.actions,
            performed=self.performed if scenario.actions else None,
        )
        self.runs = {
            run.name: RunState(run, run.rules, [BatchState(run.tries) for _ in run.batches])
            for run in scenario.runs
        }
        self.processes: list[Process] = []
        self._clear_number_of = clear_number_of
        self._orphans: list[WatchedConnection] = []
        self._a_lease_was_lost = False
        # the kind of the current move, if a process makes it
        self._touched: str | None = None
        # how often the success of a plan's batch had been cleared, according to history
        self._generations: dict[tuple[int, int], int] = {}
        self._leases = UnwatchedLeases(servers.client, self.job.name)
        self.properties = Properties(
            scenario.once, only, frozenset(r.name for r in scenario.runs if r.force), {}
        )
        self.state = self._read()

    def live(self) -> None:
        """Make moves until all is over.

        Raises:
            ViolationError: if a property does not hold.
        """
        try:
            while self._move():
                self.moves_made += 1
                self.properties.need(self.moves_made < OVER_AFTER, "P8", "there is no end")
            bad = {UNITS[number].id for number in (*self.scenario.fails, *self.scenario.kills)}
            if bad:
                self.properties.others_are_done(self.state, bad)
        finally:
            self.end()

    def follow(self, *script: str) -> None:
        """Make the moves of a script: for each line the next move with that prefix, or with … all.

        Raises:
            ViolationError: if a property does not hold.
        """
        for line in script:
            beginning, goes_on = line.removesuffix(" …"), line.endswith(" …")
            while True:
                offered = [*self._process_moves(), *self._airflow_moves(), *self._click_moves()]
                move = next((m for m in offered if m.text.startswith(beginning)), None)
                if move is None and self.trace and self.trace[-1].startswith(beginning):
                    break
                if move is None:
                    raise LookupError(f"{line!r} is not among {[m.text for m in offered]}")
                self._make(move)
                if not goes_on:
                    break

    # ---- which move ------------------------------------------------------------------------

    def _move(self) -> bool:
        steps = [*self._process_moves(), *self._airflow_moves(), *self._moves_of_time()]
        is_quiet = self.moves_made > QUIET_AFTER
        may_fail = not is_quiet and self.faults < self.scenario.faults
        faults = list(self._fault_moves()) if may_fail else []
        may_click = not is_quiet and self.clicks < self.scenario.clicks
        clicks = list(self._click_moves()) if may_click else []
        is_over = not self.processes and all(run.is_over for run in self.runs.values())
        self.properties.need(bool(steps) or is_over, "P8", "nothing can move")
        number, pace = divmod(self.chance(1000 * 1000), 1000)
        if clicks and number >= (500 if is_over else 1000 - CLICK_RATE):
            self.clicks += 1
            self._make(clicks[self.chance(len(clicks))])
        elif not is_over and faults and number >= 1000 - CLICK_RATE - self.scenario.fault_rate:
            self.faults += 1
            self._make(faults[self.chance(len(faults))])
        elif is_over:
            return False
        else:
            self._make(_weighted(steps, number / 1000))
            if pace >= 1000 - PACES and self.processes:
                other, speed = divmod(pace, len(SPEEDS))
                self._pace(self.processes[other % len(self.processes)], SPEEDS[speed])
        return True

    def _make(self, move: Move) -> None:
        self.trace.append(move.text)
        before = self.state
        try:
            move.act()
        except BlockedError as error:
            raise RuntimeError(str(error)) from error
        self.state = self._read_what_was_touched()
        self._note_plans(before)
        self.properties.after_a_move(before, self.state, clicks=self.clicks)
        self.properties.closed_rows_cannot_commit(self.state, self.processes)
        self.properties.performed_once(self.performed)
        for process in self.processes:
            pause = process.main.pause
            if pause.kind == "writes":
                for unit_id in set(pause.units) - process.entered:
                    process.entered.add(unit_id)
                    self.properties.begins_to_work(self.state, process, unit_id)

    def _read(self) -> State:
        texts = self._leases.texts(self.servers.client)
        return State.read(self.servers.observer, self.job.name, self.scenario.steps, texts)

    def _read_what_was_touched(self) -> State:
        """Read the state again, except what the last move cannot have changed."""
        touched, self._touched = self._touched, None
        if touched in TOUCH_NOTHING:
            return self.state
        if touched == "redis":
            return replace(self.state, leases=self._leases.texts(self.servers.client))
        return self._read()

    # ---- processes -------------------------------------------------------------------------

    def _process_moves(self) -> Iterator[Move]:
        locked = self._locked()
        for process in self.processes:
            pause = process.main.pause
            if pause.kind == processes.DIES:
                yield Move(f"{process}: {pause.move}", lambda process=process: self._die(process))
                continue
            waits_in_vain = pause.kind == "waits" and process.seen == self.state.leases
            if not (waits_in_vain or (pause.locks and locked & set(pause.units))):
                yield Move(
                    f"{process}: {pause.move}",
                    lambda process=process: self._resume(process, process.main),
                    process.speed,
                )
            if process.renewal is not None:
                yield Move(
                    f"{process}: {process.renewal.pause.move} (renewal)",
                    lambda process=process: self._resume(process, process.renewal),
                    process.speed / 2,
                )
            elif process.kept:
                is_lost = any(
                    self.state.leases[v] != holder.text for v, holder in process.kept.items()
                )
                yield Move(
                    f"{process}: its renewal begins",
                    lambda process=process: self._renew(process),
                    process.speed * (0.5 if is_lost else 0.02),
                )
            may_stop = not process.is_stopped and pause.kind != "reports"
            if may_stop and not self._is_current(process):
                yield Move(f"{process}: SIGTERM", lambda process=process: self._stop(process), 0.02)

    def _locked(self) -> set[UUID]:
        open_ones = [p.connection for p in self.processes if p.connection] + self._orphans
        return {unit_id for connection in open_ones for unit_id in connection.unit_ids}

    def _resume(self, process: Process, strand: Strand, error: BaseException | None = None) -> None:
        """Let a strand make its next move, or raise an error there."""
        before, pause = self.state, strand.pause
        if error is None:
            self._touched = pause.kind
            strand.switch()
        else:
            strand.throw(error)
        if strand is process.renewal:
            if strand.dead:
                process.renewal = None
            return
        if pause.kind == "open_round":
            self._note_round(before, process)
        if pause.kind == "records" and error is None:
            self.properties.is_recorded(self._read(), process, pause.units[0], pause.action)
        self._count_draws(process, pause.kind)
        if pause.kind == "raise_fence" and not self._a_lease_was_lost:
            others = [p for p in self.processes if self._is_current(p)]
            self.properties.living_keep_their_tokens(before, self._read(), others)
        if process.main.pause.kind == "waits":
            process.seen = before.leases
        process.may_wait = False
        if strand.dead:
            self._exit(process)

    def _start(self, process: Process, body: Callable[[Process], str]) -> None:
        self._pace(process, SPEEDS[self.chance(len(SPEEDS))])
        process.main = Strand(process, lambda: self._run(process, body))
        self.processes.append(process)
        self._resume(process, process.main)

    def _pace(self, process: Process, speed: float) -> None:
        if not self.scenario.is_even:
            process.speed = speed

    def _run(self, process: Process, body: Callable[[Process], str]) -> None:
        try:
            try:
                process.end = body(process)
            except PermanentError:
                process.end = "failed for good"
            except (AnalyticsError, psycopg.Error, Stopped):
                process.end = "failed"
            if process.batch != "finish":
                processes.stop_before("reports to Airflow", kind="reports")
        except Killed:
            pass

    def _connect(self, process: Process) -> WatchedConnection:
        pool = self.servers.pool
        connection = pool.pop() if pool else self.servers.connect()
        connection.is_spare = connection.lose_answer = False
        connection.owner = process
        process.connection = connection
        return connection

    def _key(self, run: Run) -> RunKey:
        # two deployments use the same run id for the same night
        run_id = "A" if run.name == "B" else run.name
        return RunKey(UUID(int=run.deployment), self.job.name, run_id)

    def _plan(self, process: Process) -> str:
        state = self.runs[process.run]
        run = state.run
        units = [UNITS[number].id for batch in run.batches for number in batch]
        settings = Rules(
            rules=state.rules, max_tasks=len(run.batches), include_venues=sorted(units)
        )

        def is_over(run_id: str) -> bool:
            (other,) = (
                s
                for s in self.runs.values()
                if (s.run.deployment, s.run.name) == (run.deployment, run_id)
            )
            return other.is_over

        with self._connect(process) as connection:
            plan_module.plan_run(
                connection,
                WatchedLeases(self.servers.client, self.job.name),
                self.job,
                self._key(run),
                settings,
                RunRequest(force=run.force),
                as_of=run.as_of,
                plan_try=process.number,
                is_over=is_over if run.name != "B" else None,
            )
        return "well"

    def _batch(self, process: Process) -> str:
        run = self.runs[process.run].run
        with self._connect(process) as connection:
            planned = history.load_run(connection, self._key(run))
            if planned is None:
                raise BlockedError(f"{process} finds no plan")
            (batch,) = history.load_batches(connection, planned, int(process.batch))
        failures = process_module.process_batch(
            lambda: self._connect(process),
            WatchedLeases(self.servers.client, self.job.name),
            self.job,
            BatchTry.of(
                self.job,
                planned,
                batch,
                try_number=process.number,
                clear_number=process.clear_number,
            ),
            # renewals are separate moves
            renew_every=processes.NEVER,
        )
        for failure in failures:
            if not isinstance(failure.error, AnalyticsError):
                raise BlockedError(f"{process}: {failure.error!r}") from failure.error
            self.properties.reported_as_failed(self._read(), process, planned.id, failure.unit.id)
        if not failures:
            return "well"
        return "failed for good" if all(f.permanent for f in failures) else "failed"

    def _finish(self, process: Process) -> str:
        state = self.runs[process.run]
        if state.plan != "s":
            return "failed for good"
        failed = [number for number, b in enumerate(state.batches) if b.state != "s"]
        with self._connect(process) as connection:
            planned = history.load_run(connection, self._key(state.run))
            if planned is None:
                raise BlockedError(f"{process} finds no plan")
            unfinished = finish_module.finish_run(
                connection,
                WatchedLeases(self.servers.client, self.job.name),
                self.job,
                planned,
                failed_batches=failed,
            )
        self.properties.none_is_left_claimed(self._read())
        return "failed for good" if unfinished else "well"

    def _renew(self, process: Process) -> None:
        keeper = process.keeper
        if keeper is None:
            raise BlockedError(f"{process} has no leases to renew")
        kept = dict(keeper._kept)

        def renew() -> None:
            with suppress(TransientError, Killed):
                keeper._renew(kept)

        process.renewal = Strand(process, renew)
        self._resume(process, process.renewal)

    def _stop(self, process: Process) -> None:
        process.is_stopped = True
        self._resume(process, process.main, Stopped("stopped by SIGTERM"))

    def _kill(self, process: Process) -> None:
        """Kill a process; the locks of its backend remain for a while."""
        process.is_killed = True
        for strand in (process.renewal, process.main):
            if strand is not None and not strand.dead:
                strand.throw(Killed())
        connection = process.connection
        if connection is not None and not connection.closed:
            if connection.is_in_transaction:
                self._orphans.append(connection)
            else:
                connection.is_spare = True
                self.servers.pool.append(connection)
        self.processes.remove(process)

    def _exit(self, process: Process) -> None:
        if process.renewal is not None:
            process.is_killed = True
            process.renewal.throw(Killed())
        self.processes.remove(process)
        run, is_current = self.runs[process.run], self._is_current(process)
        end = process.end or "failed"
        self.trace[-1] += f" … ends {end}"
        if not is_current:
            return
        if process.batch == "plan":
            if end == "well":
                run.plan = "s"
            else:
                self._give_up(process)
        elif process.batch == "finish":
            run.finish = "G" if end == "well" else "R"
            if end == "well":
                self._check_green(run)
        elif isinstance(process.batch, int):
            batch = run.batches[process.batch]
            if end == "failed" and process.number < batch.max_tries:
                batch.state = "n"
            else:
                batch.state = "s" if end == "well" else "f"

    # ---- what only the test knows ----------------------------------------------------------

    def _count_draws(self, process: Process, kind: str) -> None:
        process.draws_in_vain += kind == "draw_tokens"
        if kind == "open_unit_runs":
            process.draws_in_vain = 0
        self.properties.need(
            process.draws_in_vain <= self.faults + self.clicks + STARTED_OVER,
            "P8",
            f"{process} starts a unit over forever",
        )

    def _note_round(self, before: State, process: Process) -> None:
        if process.work is None or process.work.batch_try.round == 0:
            return
        number = int(process.batch)
        key = (process.work.batch_try.run.id, number)
        ended = before.rounds[key].ended_well_at_clear
        was_cleared = ended is not None and process.clear_number > ended
        known = self._generations.get(key, 0) + was_cleared
        process.generation = self._generations[key] = max(process.at_clear, known)
        name = (process.run, number, process.number)
        self.properties.generations[name] = process.generation

    def _note_plans(self, before: State) -> None:
        """Count a new plan as a clear of what ended well under the earlier one."""
        for name, plan in self.state.plans.items():
            earlier = before.plans.get(name)
            if earlier == plan:
                continue
            for number, batch in enumerate(self.runs[name].batches):
                known = 0
                if earlier is not None:
                    key = (earlier.id, number)
                    known = self._generations.get(key, 0)
                    known = max(known, batch.generation)
                    known += not before.rounds[key].newly_planned
                self._generations[plan.id, number] = max(known, batch.generation)

    def _check_green(self, run: RunState) -> None:
        marks = {
            UNITS[number].id: batch.marks.get(UNITS[number].id, 0)
            for numbers, batch in zip(run.run.batches, run.batches, strict=True)
            for number in numbers
        }
        state = self._read()
        rules = Rules(rules=state.plans[run.run.name].rules).rules_hash()
        as_of = run.run.as_of.isoformat()
        self.properties.ends_green(state, run.run.name, as_of, marks, rules)
        actions = product(marks, processes.keys(self.scenario.actions))
        self.properties.none_is_forgotten(state, run.run.name, actions, self.performed)

    # ---- Airflow ---------------------------------------------------------------------------

    def _airflow_moves(self) -> Iterator[Move]:
        for name, run in self.runs.items():
            if run.plan == "n":
                yield Move(f"{name}: plan starts", lambda run=run: self._start_plan(run))
            if run.plan == "s":
                for number, batch in enumerate(run.batches):
                    if batch.state == "n":
                        yield Move(
                            f"{name}: batch {number} starts, try {batch.tries + 1}",
                            lambda run=run, number=number: self._start_batch(run, number),
                        )
            are_over = run.plan == "s" and all(batch.state in "sf" for batch in run.batches)
            if run.finish == "n" and (run.plan == "f" or are_over):
                yield Move(f"{name}: finish starts", lambda run=run: self._start_finish(run))

    def _start_plan(self, run: RunState) -> None:
        run.plan, run.plan_tries = "r", run.plan_tries + 1
        self._start(Process(run.run.name, "plan", run.plan_tries), self._plan)

    def _start_batch(self, run: RunState, number: int) -> None:
        batch = run.batches[number]
        batch.state, batch.tries = "r", batch.tries + 1
        process = Process(run.run.name, number, batch.tries)
        process.at_clear = batch.generation
        process.clear_number = self._clear_number_of(run, batch)
        self._start(process, self._batch)

    def _start_finish(self, run: RunState) -> None:
        run.finish = "r"
        self._start(Process(run.run.name, "finish", 1 + run.clears), self._finish)

    def _is_current(self, process: Process) -> bool:
        """Return whether Airflow waits for this process and not for its successor."""
        run = self.runs[process.run]
        if process.batch == "plan":
            return (run.plan, run.plan_tries) == ("r", process.number)
        if process.batch == "finish":
            return (run.finish, 1 + run.clears) == ("r", process.number)
        batch = run.batches[int(process.batch)]
        return (batch.state, batch.tries) == ("r", process.number)

    def _give_up(self, process: Process) -> None:
        """Make Airflow take the process for dead, and retry or fail its task."""
        if not self._is_current(process):
            return
        run = self.runs[process.run]
        if process.batch == "plan":
            has_tries = process.number < run.run.tries + 2 * run.clears
            run.plan = "n" if has_tries else "f"
        elif process.batch == "finish":
            run.finish = "R"
        else:
            batch = run.batches[int(process.batch)]
            batch.state = "n" if process.number < batch.max_tries else "f"

    def _moves_of_time(self) -> Iterator[Move]:
        living = {h.text for p in self.processes for h in p.kept.values()}
        taken = {p.work.batch_try.process for p in self.processes if p.work}
        for unit_id, text in self.state.leases.items():
            holder = processes.leases.Holder.read(text) if text else None
            if holder and text not in living and holder.process not in taken:
                yield Move(
                    f"the lease of {NAMES[unit_id]} that the dead {holder} held expires",
                    lambda unit_id=unit_id: self._forget(unit_id),
                    0.3,
                )
        for connection in self._orphans:
            yield Move(
                f"the backend of the dead {connection.owner} ends",
                lambda connection=connection: self._end_backend(connection),
                0.3,
            )

    def _forget(self, unit_id: UUID) -> None:
        self._leases.forget(self.servers.client, unit_id)

    def _end_backend(self, connection: WatchedConnection) -> None:
        self._orphans.remove(connection)
        self._terminate([connection])
        connection.cut()

    def _terminate(self, connections: Sequence[WatchedConnection]) -> None:
        """Terminate backends, and wait until they have ended."""
        pids = [connection.info.backend_pid for connection in connections]
        self.servers.observer.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s::integer[]) AS p (pid)", [pids]
        )

    # ---- faults ----------------------------------------------------------------------------

    def _fault_moves(self) -> Iterator[Move]:
        kinds = self.scenario.fault_kinds
        for process in self.processes:
            yield from (
                Move(f"FAULT {process}: {text}", act)
                for kind, text, act in self._faults_of(process)
                if kind in kinds
            )
        if "F" in kinds and any(self.state.leases.values()):
            yield Move("FAULT Redis is flushed", self._flush)
        if "G" in kinds and any(p.connection and p.connection.unit_ids for p in self.processes):
            yield Move("FAULT PostgreSQL restarts", self._restart_postgres)

    def _faults_of(self, process: Process) -> Iterator[tuple[str, str, Callable[[], None]]]:
        pause = process.main.pause

        def raising(error: BaseException) -> Callable[[], None]:
            return lambda: self._resume(process, process.main, error)

        yield "K", "SIGKILL", lambda: self._killed(process)
        if self._is_current(process):
            yield "Z", "Airflow takes it for dead, but it lives", lambda: self._lose_sight(process)
        for unit_id, holder in process.kept.items():
            if self.state.leases[unit_id] == holder.text:
                text = f"it pauses, and its lease of {NAMES[unit_id]} expires"
                yield "E", text, lambda unit_id=unit_id: self._lose_lease(process, unit_id)
        if pause.kind in ("writes", "commits", "acts"):
            of_one = TransientError("not now", unit_id=pause.units[0])
            yield "T", f"{pause.move}: a transient error", raising(of_one)
            yield "M", f"{pause.move}: a permanent error", raising(PermanentError("not ever"))
        if pause.kind in ("acts", "records"):
            yield "U", f"{pause.move}: an error", raising(ValueError("who knows"))
        if pause.kind in ("commits", "claim_action", "records"):
            text = f"{pause.move}, and the connection breaks"
            yield "A", text, lambda: self._lose_answer(process)
        if pause.kind == "redis":
            error = TransientError("Redis does not answer")
            yield "R", f"{pause.move}, and Redis does not answer", raising(error)
        if pause.kind == "waits":
            yield "W", "it has waited too long", lambda: self._wait_too_long(process)
        if pause.locks and self._locked() & set(pause.units):
            yield "W", f"{pause.move}, waits too long", lambda: self._wait_too_long(process)

    def _killed(self, process: Process) -> None:
        self._kill(process)
        self._give_up(process)

    def _die(self, process: Process) -> None:
        """Kill a process and its backend, which nothing else could end before its next try."""
        self._killed(process)
        for connection in [one for one in self._orphans if one.owner is process]:
            self._end_backend(connection)

    def _lose_sight(self, process: Process) -> None:
        self._give_up(process)
        self._pace(process, SPEEDS[self.chance(len(SPEEDS))])

    def _lose_lease(self, process: Process, unit_id: UUID) -> None:
        self._a_lease_was_lost = True
        self._pace(process, min(SPEEDS))
        self._forget(unit_id)

    def _flush(self) -> None:
        self._a_lease_was_lost = True
        self.servers.client.flushall()

    def _lose_answer(self, process: Process) -> None:
        if process.connection is not None:
            process.connection.lose_answer = True
        self._resume(process, process.main)

    def _wait_too_long(self, process: Process) -> None:
        process.clock += 1e6
        process.may_wait = True
        self._resume(process, process.main)

    def _restart_postgres(self) -> None:
        open_ones = [p.connection for p in self.processes if p.connection]
        self._terminate([c for c in [*open_ones, *self._orphans] if not c.closed])
        for connection in open_ones:
            connection.unit_ids = ()
        for connection in self._orphans:
            connection.cut()
        self._orphans.clear()

    # ---- clicks ----------------------------------------------------------------------------

    def _click_moves(self) -> Iterator[Move]:
        kinds = self.scenario.click_kinds
        for name, run in self.runs.items():
            if "f" in kinds and run.finish == "R":
                yield Move(
                    f"CLICK clear the failed tasks of {name}",
                    lambda run=run: self._clear_failed(run),
                )
            for number, batch in enumerate(run.batches):
                if "s" in kinds and batch.state == "s" and run.finish in "nGR":
                    yield Move(
                        f"CLICK clear batch {number} of {name}",
                        lambda run=run, number=number: self._clear_success(run, number),
                    )
            if "w" in kinds and run.plan in "sf" and run.finish != "r":
                yield Move(f"CLICK clear all of {name}", lambda run=run: self._clear_all(run))
            if "m" in kinds and run.plan == "s" and run.finish == "n":
                yield Move(f"CLICK mark {name} failed", lambda run=run: self._mark_failed(run))

    def _clear_failed(self, run: RunState) -> None:
        run.finish, run.clears = "n", run.clears + 1
        if run.plan == "f":
            run.plan = "n"
        for batch in run.batches:
            if batch.state == "f":
                self._clear(run, batch)

    def _clear_success(self, run: RunState, number: int) -> None:
        batch = run.batches[number]
        run.finish, run.clears = "n", run.clears + 1
        self._clear(run, batch)
        batch.generation += 1
        batch.marks = dict(self.state.fence)

    def _clear_all(self, run: RunState) -> None:
        run.plan, run.finish, run.clears = "n", "n", run.clears + 1
        run.rules = run.run.edit or run.rules
        for batch in run.batches:
            batch.marks = dict(self.state.fence) if batch.state == "s" else {}
            batch.state, batch.max_tries = "n", batch.tries + run.run.tries
            batch.generation += 1

    def _clear(self, run: RunState, batch: BatchState) -> None:
        # retries are lowered by one, so that max_tries does not show the clear
        batch.state, batch.max_tries = "n", batch.tries + max(1, run.run.tries - 1)

    def _mark_failed(self, run: RunState) -> None:
        for batch in run.batches:
            if batch.state in "nr":
                batch.state = "f"

    def end(self) -> None:
        """Kill all processes that are still alive."""
        for process in list(self.processes):
            self._kill(process)
        for connection in list(self._orphans):
            self._end_backend(connection)


def _weighted(moves: Sequence[Move], place: float) -> Move:
    """Return the move at a place from 0 to 1, where each move is as wide as its weight."""
    left = place * sum(move.weight for move in moves)
    for move in moves:
        left -= move.weight
        if left < 0:
            return move
    return moves[-1]
