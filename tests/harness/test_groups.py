"""Groups: venues that share a transaction. A bad venue fails alone; nothing is done twice."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from threading import Thread
from typing import Any
from uuid import UUID

import psycopg
import pytest
import redis
from tests.databases import Database
from tests.harness.nights import store_run

from venue_analytics.database.statements import statement
from venue_analytics.harness import (
    Continue,
    Grouped,
    GroupRun,
    Job,
    PermanentError,
    TransientError,
    Unit,
    UnitResult,
    UnitRun,
    VenueSettings,
    dead_letters,
    groups,
    history,
)
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.failures import UnitFailure
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.process import Listener, process_batch
from venue_analytics.harness.tenant import snapshot_transaction

TONIGHT = RunKey(UUID(int=7), "chorus", "a night")
NORTH, SOUTH = UUID(int=1), UUID(int=2)
VENUES = tuple(Unit(UUID(int=n << 96), NORTH, f"v{n}") for n in range(1, 6))
V1, V2, V3, V4, V5 = VENUES
Fault = Callable[[psycopg.Connection], object]
Result = UnitResult | Continue | None


@dataclass
class Chorus:
    """A job whose venues sing together; it records which venues shared each transaction.

    Transactions that are rolled back are recorded as well.
    """

    database: Database
    leases: Leases
    venues: tuple[Unit, ...] = VENUES
    faults: dict[UUID, Fault] = field(default_factory=dict)
    sung: list[str] = field(default_factory=list)
    settings: VenueSettings = field(default_factory=VenueSettings)
    key: RunKey = TONIGHT
    run: PlannedRun = field(init=False)
    steps: dict[str, Any] = field(default_factory=dict)
    options: str = ""
    connection_class: type[psycopg.Connection[Any]] = psycopg.Connection

    def __post_init__(self) -> None:
        self.steps = self.steps or {"sing": Grouped(self.sing)}
        with self.database.jobs() as connection:
            self.run = store_run(connection, self.key, [self.batch])

    @property
    def batch(self) -> Batch:
        return Batch(0, "all", self.venues)

    @property
    def job(self) -> Job[VenueSettings]:
        return Job("chorus", VenueSettings, self.steps, lambda *_: 0, lambda *_: [])

    def do(
        self, try_number: int = 1, *, clear_number: int = 0, **options: Any
    ) -> list[UnitFailure]:
        batch_try = BatchTry.of(
            self.job, self.run, self.batch, try_number=try_number, clear_number=clear_number
        )
        batch_try = replace(batch_try, settings=self.settings)
        return process_batch(self.connect, self.leases, self.job, batch_try, **options)

    def sing(self, run: GroupRun[VenueSettings]) -> dict[UUID, UnitResult]:
        self.sung.append(" ".join(venue.name for venue in run.units))
        for venue in run.units:
            if fault := self.faults.get(venue.id):
                fault(run.connection)
        return {v.id: UnitResult(rows_read=int(v.name[1:]) - 1) for v in run.units}

    def hum(self, run: GroupRun[VenueSettings]) -> None:
        self.sung.append(" ".join(["hum", *(venue.name for venue in run.units)]))

    def connect(self) -> psycopg.Connection:
        return self.connection_class.connect(
            self.database.uri("analytics_jobs"),
            options=f"-c role=analytics_jobs -c timezone=UTC {self.options}",
            autocommit=True,
        )

    def outcomes(self) -> dict[str, str]:
        with self.database.jobs() as connection:
            attempts = history.last_attempts(connection, self.run)
        return {attempt.unit_name: attempt.outcome for attempt in attempts.values()}

    def rows(self, columns: str) -> list[Any]:
        with self.database.superuser() as connection:
            return connection.execute(
                f"SELECT {columns} FROM jobs.unit_run ORDER BY id"  # type: ignore[arg-type]  # noqa: S608
            ).fetchall()


@pytest.fixture
def chorus(simple: Database, redis_client: redis.Redis) -> Chorus:
    return Chorus(simple, Leases(redis_client, "chorus"))


def fail(error: Exception) -> Fault:
    def raise_it(_: psycopg.Connection) -> None:
        raise error

    return raise_it


def query(text: str) -> Fault:
    return lambda connection: connection.execute(text)  # type: ignore[arg-type]


def replace_key(chorus: Chorus, venues: tuple[Unit, ...]) -> Chorus:
    """Return the same night in another deployment."""
    key = RunKey(UUID(int=8), chorus.key.job, chorus.key.run_id)
    theirs = Chorus(chorus.database, chorus.leases, venues, chorus.faults, key=key)
    theirs.steps = chorus.steps
    return theirs


ALL = "v1 v2 v3 v4 v5"
ALL_WELL = {venue.name: "succeeded" for venue in VENUES}
V2_FAILED = ALL_WELL | {"v2": "failed"}


def test_venues_of_a_tenant_share_a_transaction(chorus: Chorus) -> None:
    assert chorus.do() == []
    assert chorus.sung == [ALL]
    assert chorus.outcomes() == ALL_WELL
    assert [chorus.leases.holder(v.id) for v in VENUES] == [None] * 5


def test_a_transactions_seconds_are_shared_by_the_rows_that_each_venue_read(
    chorus: Chorus,
) -> None:
    chorus.faults[V1.id] = query("SELECT pg_sleep(0.3)")
    chorus.do()
    seconds = [seconds for (seconds,) in chorus.rows("seconds")]
    # v1 reads no rows, v5 four; a venue's share is the rows it reads plus one
    assert [each / seconds[0] for each in seconds] == pytest.approx([1, 2, 3, 4, 5], rel=0.05)
    assert 0.3 <= sum(seconds) < 3


def test_the_seconds_of_a_step_for_one_venue_count_for_that_venue(chorus: Chorus) -> None:
    def bow(run: UnitRun[VenueSettings]) -> Result:
        run.connection.execute("SELECT pg_sleep(%s)", [int(run.unit.name[1:]) / 10])
        return UnitResult()

    chorus.steps = {"hum": Grouped(chorus.hum), "bow": bow}
    assert chorus.do() == []
    seconds = [seconds for (seconds,) in chorus.rows("seconds")]
    assert seconds == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=0.09)


def test_tenants_and_moves_do_not_mix(simple: Database, redis_client: redis.Redis) -> None:
    other = replace(V2, tenant_id=SOUTH)
    moved = replace(V3, former_tenant_id=SOUTH)
    gone = replace(V4, gone=True)
    chorus = Chorus(
        simple,
        Leases(redis_client, "chorus"),
        venues=(V1, V5, other, moved, gone),
    )
    assert chorus.do() == []
    assert chorus.sung == ["v1 v5", "v2", "v3"]


@pytest.mark.fault("one-bad-venue")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (fail(ValueError("no such seat")), "no such seat"),
        (fail(PermanentError("no such row")), "no such row"),
        (query("SELECT 'x'::uuid"), "a value that cannot be read"),
        (query("SELECT 1/0"), "a value that cannot be read"),
    ],
    ids=["error", "permanent", "value", "division"],
)
def test_one_bad_venue_fails_alone_and_the_lost_time_is_logged(
    chorus: Chorus, fault: Fault, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    chorus.faults[V2.id] = fault
    with caplog.at_level(logging.WARNING):
        (failure,) = chorus.do()
    assert failure.unit == V2
    assert words in str(failure)
    assert chorus.sung == [ALL, "v1", "v2", "v3", "v4", "v5"]
    assert chorus.outcomes() == V2_FAILED
    logged = [record.message for record in caplog.records if " s lost, " in record.message]
    assert len(logged) == 1
    assert re.match(
        r"5 venues: v1, v2, v3, v4, v5: \d\.\d s lost, each is processed by itself now: ", logged[0]
    )


def test_an_error_that_names_its_venue_costs_the_others_one_more_transaction(
    chorus: Chorus,
) -> None:
    chorus.faults[V2.id] = fail(TransientError("not yet", unit_id=V2.id))
    (failure,) = chorus.do()
    assert failure.unit == V2
    assert chorus.sung == [ALL, "v1 v3 v4 v5"]
    assert chorus.outcomes() == V2_FAILED


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (fail(TransientError("the source is behind")), "the source is behind"),
        (query("SELECT pg_terminate_backend(pg_backend_pid())"), "AdminShutdown"),
        (
            query("DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$"),
            "full",
        ),
    ],
    ids=["source", "connection", "disk"],
)
def test_an_error_that_every_venue_would_meet_is_not_retried_one_by_one(
    chorus: Chorus, fault: Fault, words: str
) -> None:
    chorus.faults[V2.id] = fault
    failures = chorus.do()
    assert [failure.unit for failure in failures] == list(VENUES)
    assert all(words in str(failure) for failure in failures)
    assert chorus.sung == [ALL]


def test_an_error_that_all_venues_met_makes_none_of_them_suspect(chorus: Chorus) -> None:
    chorus.faults[V2.id] = fail(TransientError("the source is behind"))
    chorus.do()
    chorus.faults.clear()
    assert chorus.do(2) == []
    assert chorus.sung == [ALL, ALL]


@pytest.mark.parametrize("condition", ["serialization_failure", "deadlock_detected"])
def test_a_group_that_conflicts_is_retried_once_and_then_done_one_by_one(
    chorus: Chorus, condition: str
) -> None:
    met: list[int] = []

    def conflict(times: int) -> Fault:
        def raise_conflict(connection: psycopg.Connection) -> None:
            met.append(1)
            if len(met) <= times:
                connection.execute(
                    "DO $$ BEGIN RAISE EXCEPTION 'in the way' "
                    f"USING ERRCODE = '{condition}'; END $$"  # type: ignore[arg-type]
                )

        return raise_conflict

    chorus.faults[V2.id] = conflict(1)
    assert chorus.do() == []
    assert chorus.sung == [ALL] * 2
    chorus.sung.clear()
    met.clear()
    chorus.faults[V2.id] = conflict(2)
    assert chorus.do(2, clear_number=1) == []
    assert chorus.sung == [ALL] * 2 + ["v1", "v2", "v3", "v4", "v5"]


def test_when_another_attempt_takes_a_venue_over_the_others_go_on(
    chorus: Chorus,
) -> None:
    chorus.steps = {"hum": Grouped(chorus.hum), "sing": Grouped(chorus.sing)}

    @contextmanager
    def around(_: str) -> Iterator[None]:
        if chorus.sung:
            with chorus.database.superuser() as other:
                other.execute("UPDATE jobs.fence SET token = token + 1 WHERE unit_id = %s", [V2.id])
        yield

    (failure,) = chorus.do(listener=Listener(around))
    assert str(failure) == "v2: another attempt has taken over"
    assert chorus.sung == ["hum v1 v2 v3 v4 v5", "v1 v3 v4 v5"]
    assert chorus.outcomes() == V2_FAILED


def test_a_row_that_was_closed_meanwhile_fails_its_venue_alone(chorus: Chorus) -> None:
    def be_taken_for_dead(_: psycopg.Connection) -> None:
        if chorus.sung == [ALL]:
            with chorus.database.superuser() as other:
                other.execute(
                    "UPDATE jobs.unit_run SET outcome = 'failed' WHERE unit_id = %s",
                    [V2.id],
                )

    chorus.faults[V3.id] = be_taken_for_dead
    (failure,) = chorus.do()
    assert failure.unit == V2
    assert "its row in history was closed by another process" in str(failure)
    assert chorus.outcomes() == V2_FAILED


def test_a_venue_that_is_already_done_leaves_the_group_and_is_skipped(chorus: Chorus) -> None:
    theirs = replace_key(chorus, venues=(V2,))
    theirs.do()
    chorus.sung.clear()
    assert chorus.do() == []
    assert chorus.sung == ["v1 v3 v4 v5"]
    assert chorus.outcomes() == ALL_WELL | {"v2": "skipped"}


def test_a_venue_that_is_half_done_leaves_the_group_and_resumes_by_itself(chorus: Chorus) -> None:
    chorus.steps = {"hum": Grouped(chorus.hum), "sing": Grouped(chorus.sing)}
    chorus.faults[V2.id] = fail(ValueError("no voice"))
    theirs = replace_key(chorus, venues=(V2,))
    theirs.do()
    chorus.faults.clear()
    chorus.sung.clear()
    assert chorus.do() == []
    assert chorus.sung == ["hum v1 v3 v4 v5", "v1 v3 v4 v5", "v2"]
    assert chorus.outcomes() == ALL_WELL


def test_a_step_for_one_venue_may_follow_a_grouped_step(chorus: Chorus) -> None:
    def bow(run: UnitRun[VenueSettings]) -> Result:
        chorus.sung.append(f"bow {run.unit.name} {run.cursor}")
        return Continue(1) if run.cursor is None else UnitResult()

    chorus.steps = {"hum": Grouped(chorus.hum), "bow": bow}
    chorus.venues = (V1, V2)
    assert chorus.do() == []
    assert chorus.sung == [
        "hum v1 v2",
        "bow v1 None",
        "bow v1 1",
        "bow v2 None",
        "bow v2 1",
    ]


def test_a_venue_without_a_result_fails_alone(chorus: Chorus) -> None:
    def forget(run: GroupRun[VenueSettings]) -> dict[UUID, UnitResult]:
        return {id_: one for id_, one in chorus.sing(run).items() if id_ != V2.id}

    chorus.steps = {"sing": Grouped(forget)}
    (failure,) = chorus.do()
    assert str(failure).startswith("v2: TypeError: step 'sing' of chorus returned NoneType")
    assert chorus.outcomes() == V2_FAILED


def test_a_grouped_step_cannot_continue_in_pieces(chorus: Chorus) -> None:
    chorus.venues = (V1, V2)
    pieces = Grouped(lambda run: dict.fromkeys((v.id for v in run.units), Continue(1)))
    chorus.steps = {"sing": pieces}
    failures = chorus.do()
    assert ["or, unless they take groups, Continue" in str(failure) for failure in failures] == [
        True
    ] * 2


def test_an_item_is_set_aside_under_its_own_venue(chorus: Chorus) -> None:
    def set_aside(run: GroupRun[VenueSettings]) -> dict[UUID, UnitResult]:
        run.set_aside(V2, "row 7", {"seat": "?"}, PermanentError("no such seat"))
        return chorus.sing(run)

    chorus.steps = {"sing": Grouped(set_aside)}
    assert chorus.do() == []
    with chorus.database.jobs() as connection:
        (letter,) = dead_letters.find(connection)
    assert (letter.unit_name, letter.key, letter.error) == ("v2", "row 7", "no such seat")


def test_success_resolves_the_letters_of_all_venues(chorus: Chorus) -> None:
    chorus.faults[V2.id] = fail(TransientError("the source is behind"))
    chorus.do()
    with chorus.database.jobs() as connection:
        assert len(finish_run(connection, chorus.leases, chorus.job, chorus.run)) == 5
        assert len(dead_letters.find(connection)) == 5
    chorus.faults.clear()
    assert chorus.do(2) == []
    with chorus.database.jobs() as connection:
        assert dead_letters.find(connection) == []


# hanging, locked, killed -------------------------------------------------------------------


@pytest.mark.fault("one-hangs")
def test_a_venue_that_hangs_is_cancelled_twice_and_done_last(
    chorus: Chorus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(groups, "SHORTEST_LIMIT", timedelta(seconds=0.3))
    monkeypatch.setattr(groups, "PATIENCE", 0)
    chorus.faults[V2.id] = query("SELECT pg_sleep(60)")
    chorus.options = "-c statement_timeout=600"
    (failure,) = chorus.do()
    assert failure.unit == V2
    assert "canceling statement due to statement timeout" in str(failure)
    assert chorus.sung == [ALL, "v1", "v2", "v3", "v4", "v5", "v2"]
    assert chorus.outcomes() == V2_FAILED
    assert re.search(
        r"v2: 0\.\d s lost, it is processed after all others: cut: a statement took longer than "
        r"0\.3 s",
        caplog.text,
    )


def test_a_slow_venue_has_all_the_time_of_the_task_when_no_other_waits(
    chorus: Chorus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SHORTEST_LIMIT", timedelta(seconds=0.1))
    monkeypatch.setattr(groups, "PATIENCE", 0)
    chorus.venues = (V2,)
    chorus.faults[V2.id] = query("SELECT pg_sleep(0.3)")
    assert chorus.do() == []
    assert chorus.sung == ["v2"]


@pytest.mark.fault("one-hangs")
def test_a_slow_venue_is_done_although_another_hangs_forever(
    chorus: Chorus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SHORTEST_LIMIT", timedelta(seconds=0.2))
    monkeypatch.setattr(groups, "PATIENCE", 0)
    chorus.venues = (V1, V2)
    chorus.faults[V1.id] = query("SELECT pg_sleep(0.5)")
    chorus.faults[V2.id] = query("SELECT pg_sleep(60)")
    chorus.options = "-c statement_timeout=900"
    (failure,) = chorus.do()
    assert failure.unit == V2
    # together, each by itself, v1 with four times the limit, v2 with the session's whole timeout
    assert chorus.sung == ["v1 v2", "v1", "v2", "v1", "v2"]
    assert chorus.outcomes() == {"v1": "succeeded", "v2": "failed"}


def test_a_venue_that_was_cancelled_holds_no_lease_while_it_waits(
    chorus: Chorus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SHORTEST_LIMIT", timedelta(seconds=0.2))
    monkeypatch.setattr(groups, "PATIENCE", 0)
    held: list[object] = []
    chorus.venues = (V1, replace(V2, expected_seconds=9.0))
    chorus.faults[V1.id] = query("SELECT pg_sleep(0.5)")
    chorus.faults[V2.id] = lambda _: held.append(chorus.leases.holder(V1.id))
    assert chorus.do() == []
    assert chorus.sung == ["v1", "v2", "v1"]
    assert held == [None]


def test_a_cancelled_venue_whose_row_cannot_be_closed_stops_no_other(
    chorus: Chorus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SHORTEST_LIMIT", timedelta(seconds=0.3))
    monkeypatch.setattr(groups, "PATIENCE", 0)
    chorus.options = "-c lock_timeout=200 -c statement_timeout=600"
    with chorus.database.superuser() as other, other.transaction():

        def hang_with_the_row_locked(connection: psycopg.Connection) -> None:
            other.execute("SELECT FROM jobs.unit_run WHERE unit_id = %s FOR UPDATE", [V2.id])
            connection.execute("SELECT pg_sleep(60)")

        chorus.faults[V2.id] = hang_with_the_row_locked
        chorus.venues = (V2, V1)
        failures = chorus.do()
    assert [failure.unit for failure in failures] == [V2]
    assert chorus.outcomes()["v1"] == "succeeded"


def test_a_limit_never_exceeds_the_tasks_and_ends_with_its_transaction(
    chorus: Chorus,
) -> None:
    limits: list[object] = []

    def note(connection: psycopg.Connection) -> None:
        limits.extend(connection.execute("SHOW statement_timeout").fetchone() or ())

    long = replace(V1, expected_seconds=9_999.0)
    chorus.settings = VenueSettings(timeout_minutes=1)
    # one by itself while others wait; a group; the last one, with no other waiting
    chorus.venues = (long, V2, V3, replace(V4, expected_seconds=9_999.0))
    chorus.options = "-c statement_timeout=77s"
    chorus.faults = dict.fromkeys((V1.id, V2.id, V4.id), note)
    assert chorus.do() == []
    assert limits == ["1min", "30s", "77s"]


@pytest.mark.fault("one-hangs")
def test_a_venue_whose_fence_is_locked_delays_the_others_by_the_lock_timeout(
    chorus: Chorus,
) -> None:
    chorus.do()
    chorus.sung.clear()
    chorus.options = "-c lock_timeout=300"
    with chorus.database.superuser() as other, other.transaction():
        other.execute("SELECT FROM jobs.fence WHERE unit_id = %s FOR UPDATE", [V2.id])
        (failure,) = chorus.do(2, clear_number=1)
    assert failure.unit == V2
    assert "lock timeout" in str(failure)
    assert chorus.sung == ["v1", "v3", "v4", "v5"]
    assert chorus.outcomes() == V2_FAILED


class Killed(BaseException):
    """Stands for a kill: only the clean-up runs afterwards."""


@pytest.mark.fault("one-kills")
def test_a_group_whose_worker_died_is_done_one_by_one_and_no_venue_fails(chorus: Chorus) -> None:
    chorus.faults[V2.id] = fail(Killed())  # type: ignore[arg-type]
    with pytest.raises(Killed):
        chorus.do()
    chorus.faults.clear()
    assert chorus.do(2) == []
    assert chorus.sung == [ALL, "v1", "v2", "v3", "v4", "v5"]
    assert chorus.outcomes() == ALL_WELL


@pytest.mark.fault("one-kills")
def test_a_venue_that_kills_its_worker_every_time_does_not_block_the_others(
    chorus: Chorus,
) -> None:
    chorus.faults[V2.id] = fail(Killed())  # type: ignore[arg-type]
    for try_number in (1, 2, 3, 4):
        with pytest.raises(Killed):
            chorus.do(try_number)
    assert chorus.sung == [ALL, "v1", "v2", "v3", "v4", "v5", "v2", "v2"]
    assert chorus.outcomes() == V2_FAILED


@pytest.mark.fault("answer-lost")
def test_after_a_lost_answer_to_commit_the_rows_show_how_it_ended(chorus: Chorus) -> None:
    chorus.connection_class = LosesAnswers
    assert chorus.do() == []
    assert chorus.outcomes() == ALL_WELL
    assert chorus.sung == [ALL]
    chorus.sung.clear()
    chorus.connection_class = psycopg.Connection
    assert chorus.do(2) == []
    assert chorus.sung == []


def test_a_connection_lost_before_commit_fails_all(chorus: Chorus) -> None:
    chorus.faults[V5.id] = lambda connection: connection.close()
    failures = chorus.do()
    assert [failure.unit for failure in failures] == list(VENUES)
    assert set(chorus.outcomes().values()) == {"failed"}


class LosesAnswers(psycopg.Connection[Any]):
    """A connection that breaks after each COMMIT of data, before the answer arrives."""

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        with super().transaction(savepoint_name, force_rollback) as transaction:
            yield transaction
        self.close()
        raise psycopg.OperationalError("the connection broke before the answer came")


# locks in one order ------------------------------------------------------------------------


def test_processes_that_lock_the_same_venues_in_any_order_never_deadlock(
    chorus: Chorus,
) -> None:
    ids = [UUID(int=n << 90) for n in range(1, 41)]
    errors: list[Exception] = []

    def draw_and_enter(order: list[UUID]) -> None:
        with chorus.connect() as connection:
            for _ in range(50):
                try:
                    connection.execute(
                        statement("venue_analytics.harness", "draw_tokens"),
                        {"job": "x", "unit_ids": order},
                    )
                    with snapshot_transaction(connection):
                        connection.execute(
                            "SELECT jobs.enter('x', %s, %s::uuid[], %s::bigint[], NULL)",
                            [NORTH, order, [1] * len(order)],
                        )
                except psycopg.errors.SerializationFailure:
                    pass  # another process drew tokens meanwhile
                except psycopg.Error as error:
                    errors.append(error)
                    return

    orders = (ids, ids[::-1], ids[20:] + ids[:20], ids[::-1])
    threads = [Thread(target=draw_and_enter, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
