"""Groups: venues of one transaction. What is bad of them fails alone, and nothing is done twice."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any
from uuid import UUID

import psycopg
import pytest
import redis
from tests.databases import Database

from venue_analytics.database.statements import statement
from venue_analytics.harness import (
    Again,
    Grouped,
    GroupRun,
    Job,
    JobSettings,
    PermanentError,
    TransientError,
    Venue,
    VenueResult,
    VenueRun,
    dead_letters,
    groups,
    history,
)
from venue_analytics.harness.batches import Batch
from venue_analytics.harness.failures import VenueFailure
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import PlannedRun, RunKey
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.tenant import one_moment

TONIGHT = RunKey(UUID(int=7), "chorus", "a night")
AS_OF = datetime(2026, 3, 1, 2, tzinfo=UTC)
NORTH, SOUTH = UUID(int=1), UUID(int=2)
VENUES = tuple(Venue(UUID(int=n << 96), NORTH, f"v{n}") for n in range(1, 6))
V1, V2, V3, V4, V5 = VENUES
Fault = Callable[[psycopg.Connection], object]
Result = VenueResult | Again | None


@dataclass
class Chorus:
    """A job whose venues sing together, and which notes who sang with whom.

    What a transaction that is rolled back has sung is noted as well.
    """

    database: Database
    leases: Leases
    venues: tuple[Venue, ...] = VENUES
    faults: dict[UUID, Fault] = field(default_factory=dict)
    sung: list[str] = field(default_factory=list)
    settings: JobSettings = field(default_factory=JobSettings)
    key: RunKey = TONIGHT
    run: PlannedRun = field(init=False)
    steps: tuple[Any, ...] = ()
    options: str = ""
    connection_class: type[psycopg.Connection[Any]] = psycopg.Connection

    def __post_init__(self) -> None:
        self.steps = self.steps or (Grouped(self.sing),)
        with self.database.jobs() as connection:
            history.store_plan(
                connection,
                self.key,
                plan_try=1,
                as_of=AS_OF,
                request=RunRequest(),
                settings={},
                source_faults=[],
                left_behind=[],
                batches=[self.batch],
            )
            run = history.load_run(connection, self.key)
        assert run is not None
        self.run = run

    @property
    def batch(self) -> Batch:
        return Batch(0, "all", self.venues)

    @property
    def job(self) -> Job[JobSettings]:
        return Job("chorus", JobSettings, self.steps, lambda *_: 0, lambda *_: [])

    def do(self, try_number: int = 1, **options: Any) -> list[VenueFailure]:
        return process_batch(
            self.connect,
            self.leases,
            self.job,
            self.run,
            self.batch,
            self.settings,
            try_number=try_number,
            **options,
        )

    def sing(self, run: GroupRun[JobSettings]) -> dict[UUID, VenueResult]:
        self.sung.append(" ".join(venue.name for venue in run.venues))
        for venue in run.venues:
            if fault := self.faults.get(venue.venue_id):
                fault(run.connection)
        return {v.venue_id: VenueResult(rows_read=int(v.name[1:]) - 1) for v in run.venues}

    def hum(self, run: GroupRun[JobSettings]) -> None:
        self.sung.append(" ".join(["hum", *(venue.name for venue in run.venues)]))

    def connect(self) -> psycopg.Connection:
        return self.connection_class.connect(
            self.database.uri("analytics_jobs"),
            options=f"-c role=analytics_jobs -c timezone=UTC {self.options}",
            autocommit=True,
        )

    def outcomes(self) -> dict[str, str]:
        with self.database.jobs() as connection:
            attempts = history.last_attempts(connection, self.run)
        return {attempt.venue_name: attempt.outcome for attempt in attempts.values()}

    def rows(self, columns: str) -> list[Any]:
        with self.database.superuser() as connection:
            return connection.execute(
                f"SELECT {columns} FROM jobs.venue_run ORDER BY id"  # type: ignore[arg-type]  # noqa: S608
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


def replace_key(chorus: Chorus, venues: tuple[Venue, ...]) -> Chorus:
    """The same night in another deployment."""
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
    assert [chorus.leases.holder(v.venue_id) for v in VENUES] == [None] * 5


def test_what_the_transaction_took_is_shared_by_the_rows_that_each_venue_read(
    chorus: Chorus,
) -> None:
    chorus.faults[V1.venue_id] = query("SELECT pg_sleep(0.3)")
    chorus.do()
    seconds = [seconds for (seconds,) in chorus.rows("seconds")]
    # v1 reads nothing, v5 four rows: each counts for one more than it reads
    assert [each / seconds[0] for each in seconds] == pytest.approx([1, 2, 3, 4, 5], rel=0.05)
    assert 0.3 <= sum(seconds) < 3


def test_what_steps_of_their_own_took_is_each_venues(chorus: Chorus) -> None:
    def bow(run: VenueRun[JobSettings]) -> Result:
        run.connection.execute("SELECT pg_sleep(%s)", [int(run.venue.name[1:]) / 10])
        return VenueResult()

    chorus.steps = (Grouped(chorus.hum), bow)
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
def test_one_bad_venue_fails_alone_and_is_told_so(
    chorus: Chorus, fault: Fault, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    chorus.faults[V2.venue_id] = fault
    with caplog.at_level(logging.WARNING):
        (failure,) = chorus.do()
    assert failure.venue == V2
    assert words in str(failure)
    assert chorus.sung == [ALL, "v1", "v2", "v3", "v4", "v5"]
    assert chorus.outcomes() == V2_FAILED
    told = [record.message for record in caplog.records if " s lost, " in record.message]
    assert len(told) == 1
    assert re.match(
        r"5 venues: v1, v2, v3, v4, v5: \d\.\d s lost, each is done by itself now: ", told[0]
    )


def test_an_error_that_names_its_venue_costs_the_others_one_more_transaction(
    chorus: Chorus,
) -> None:
    chorus.faults[V2.venue_id] = fail(TransientError("not yet", venue_id=V2.venue_id))
    (failure,) = chorus.do()
    assert failure.venue == V2
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
def test_what_each_would_meet_alike_is_not_met_one_by_one(
    chorus: Chorus, fault: Fault, words: str
) -> None:
    chorus.faults[V2.venue_id] = fault
    failures = chorus.do()
    assert [failure.venue for failure in failures] == list(VENUES)
    assert all(words in str(failure) for failure in failures)
    assert chorus.sung == [ALL]


def test_what_all_have_met_makes_none_of_them_suspect(chorus: Chorus) -> None:
    chorus.faults[V2.venue_id] = fail(TransientError("the source is behind"))
    chorus.do()
    chorus.faults.clear()
    assert chorus.do(2) == []
    assert chorus.sung == [ALL, ALL]


@pytest.mark.parametrize("condition", ["serialization_failure", "deadlock_detected"])
def test_a_group_that_was_in_anothers_way_is_done_once_more_and_then_one_by_one(
    chorus: Chorus, condition: str
) -> None:
    met: list[int] = []

    def be_in_the_way(times: int) -> Fault:
        def meet(connection: psycopg.Connection) -> None:
            met.append(1)
            if len(met) <= times:
                connection.execute(
                    "DO $$ BEGIN RAISE EXCEPTION 'in the way' "
                    f"USING ERRCODE = '{condition}'; END $$"  # type: ignore[arg-type]
                )

        return meet

    chorus.faults[V2.venue_id] = be_in_the_way(1)
    assert chorus.do() == []
    assert chorus.sung == [ALL] * 2
    chorus.sung.clear()
    met.clear()
    chorus.faults[V2.venue_id] = be_in_the_way(2)
    assert chorus.do(2, clear_number=1) == []
    assert chorus.sung == [ALL] * 2 + ["v1", "v2", "v3", "v4", "v5"]


def test_a_venue_that_another_attempt_takes_over_leaves_the_others_their_step(
    chorus: Chorus,
) -> None:
    chorus.steps = (Grouped(chorus.hum), Grouped(chorus.sing))

    @contextmanager
    def around(_: str) -> Iterator[None]:
        if chorus.sung:
            with chorus.database.superuser() as other:
                other.execute(
                    "UPDATE jobs.fence SET token = token + 1 WHERE venue_id = %s", [V2.venue_id]
                )
        yield

    (failure,) = chorus.do(around=around)
    assert str(failure) == "v2: another attempt has taken over"
    assert chorus.sung == ["hum v1 v2 v3 v4 v5", "v1 v3 v4 v5"]
    assert chorus.outcomes() == V2_FAILED


def test_a_row_that_was_closed_meanwhile_costs_its_venue_alone(chorus: Chorus) -> None:
    def be_taken_for_dead(_: psycopg.Connection) -> None:
        if chorus.sung == [ALL]:
            with chorus.database.superuser() as other:
                other.execute(
                    "UPDATE jobs.venue_run SET outcome = 'failed' WHERE venue_id = %s",
                    [V2.venue_id],
                )

    chorus.faults[V3.venue_id] = be_taken_for_dead
    (failure,) = chorus.do()
    assert failure.venue == V2
    assert "its row in history was closed by another process" in str(failure)
    assert chorus.outcomes() == V2_FAILED


def test_a_venue_that_somebody_has_done_leaves_the_group_and_is_skipped(chorus: Chorus) -> None:
    theirs = replace_key(chorus, venues=(V2,))
    theirs.do()
    chorus.sung.clear()
    assert chorus.do() == []
    assert chorus.sung == ["v1 v3 v4 v5"]
    assert chorus.outcomes() == ALL_WELL | {"v2": "skipped"}


def test_a_venue_that_is_half_done_leaves_the_group_and_resumes_by_itself(chorus: Chorus) -> None:
    chorus.steps = (Grouped(chorus.hum), Grouped(chorus.sing))
    chorus.faults[V2.venue_id] = fail(ValueError("no voice"))
    theirs = replace_key(chorus, venues=(V2,))
    theirs.do()
    chorus.faults.clear()
    chorus.sung.clear()
    assert chorus.do() == []
    assert chorus.sung == ["hum v1 v3 v4 v5", "v1 v3 v4 v5", "v2"]
    assert chorus.outcomes() == ALL_WELL


def test_a_step_for_one_venue_follows_on_a_step_for_many(chorus: Chorus) -> None:
    def bow(run: VenueRun[JobSettings]) -> Result:
        chorus.sung.append(f"bow {run.venue.name} {run.cursor}")
        return Again(1) if run.cursor is None else VenueResult()

    chorus.steps = (Grouped(chorus.hum), bow)
    chorus.venues = (V1, V2)
    assert chorus.do() == []
    assert chorus.sung == [
        "hum v1 v2",
        "bow v1 None",
        "bow v1 1",
        "bow v2 None",
        "bow v2 1",
    ]


def test_a_venue_without_a_result_is_an_error_of_its_own(chorus: Chorus) -> None:
    def forget(run: GroupRun[JobSettings]) -> dict[UUID, VenueResult]:
        return {id_: one for id_, one in chorus.sing(run).items() if id_ != V2.venue_id}

    chorus.steps = (Grouped(forget),)
    (failure,) = chorus.do()
    assert str(failure).startswith("v2: TypeError: step 1 of 1 of chorus gave NoneType")
    assert chorus.outcomes() == V2_FAILED


def test_a_step_of_groups_has_no_pieces(chorus: Chorus) -> None:
    chorus.venues = (V1, V2)
    chorus.steps = (Grouped(lambda run: dict.fromkeys((v.venue_id for v in run.venues), Again(1))),)
    failures = chorus.do()
    assert ["one that takes groups has no pieces" in str(failure) for failure in failures] == [
        True
    ] * 2


def test_an_item_is_set_aside_under_its_own_venue(chorus: Chorus) -> None:
    def set_aside(run: GroupRun[JobSettings]) -> dict[UUID, VenueResult]:
        run.set_aside(V2, "row 7", {"seat": "?"}, PermanentError("no such seat"))
        return chorus.sing(run)

    chorus.steps = (Grouped(set_aside),)
    assert chorus.do() == []
    with chorus.database.jobs() as connection:
        (letter,) = dead_letters.find(connection)
    assert (letter.venue_name, letter.key, letter.error) == ("v2", "row 7", "no such seat")


def test_letters_of_all_venues_are_answered_by_their_good_end(chorus: Chorus) -> None:
    chorus.faults[V2.venue_id] = fail(TransientError("the source is behind"))
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
def test_a_venue_that_hangs_costs_the_others_its_limit_twice_and_is_done_last(
    chorus: Chorus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(groups, "SHORTEST_LIMIT", timedelta(seconds=0.3))
    monkeypatch.setattr(groups, "PATIENCE", 0)
    chorus.faults[V2.venue_id] = query("SELECT pg_sleep(60)")
    chorus.options = "-c statement_timeout=600"
    (failure,) = chorus.do()
    assert failure.venue == V2
    assert "canceling statement due to statement timeout" in str(failure)
    assert chorus.sung == [ALL, "v1", "v2", "v3", "v4", "v5", "v2"]
    assert chorus.outcomes() == V2_FAILED
    assert re.search(
        r"v2: 0\.\d s lost, it is done after all others: cut: a statement took longer than 0\.3 s",
        caplog.text,
    )


def test_a_slow_venue_that_nobody_waits_for_has_all_the_time_of_the_task(
    chorus: Chorus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SHORTEST_LIMIT", timedelta(seconds=0.1))
    monkeypatch.setattr(groups, "PATIENCE", 0)
    chorus.venues = (V2,)
    chorus.faults[V2.venue_id] = query("SELECT pg_sleep(0.3)")
    assert chorus.do() == []
    assert chorus.sung == ["v2"]


@pytest.mark.fault("one-hangs")
def test_a_slow_venue_is_done_though_another_hangs_for_ever(
    chorus: Chorus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SHORTEST_LIMIT", timedelta(seconds=0.2))
    monkeypatch.setattr(groups, "PATIENCE", 0)
    chorus.venues = (V1, V2)
    chorus.faults[V1.venue_id] = query("SELECT pg_sleep(0.5)")
    chorus.faults[V2.venue_id] = query("SELECT pg_sleep(60)")
    chorus.options = "-c statement_timeout=900"
    (failure,) = chorus.do()
    assert failure.venue == V2
    # together, each by itself, v1 with four times the limit, v2 with all that the session has
    assert chorus.sung == ["v1 v2", "v1", "v2", "v1", "v2"]
    assert chorus.outcomes() == {"v1": "succeeded", "v2": "failed"}


def test_a_venue_that_was_cut_holds_no_lease_while_it_waits(
    chorus: Chorus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SHORTEST_LIMIT", timedelta(seconds=0.2))
    monkeypatch.setattr(groups, "PATIENCE", 0)
    held: list[object] = []
    chorus.venues = (V1, replace(V2, expected_seconds=9.0))
    chorus.faults[V1.venue_id] = query("SELECT pg_sleep(0.5)")
    chorus.faults[V2.venue_id] = lambda _: held.append(chorus.leases.holder(V1.venue_id))
    assert chorus.do() == []
    assert chorus.sung == ["v1", "v2", "v1"]
    assert held == [None]


def test_a_cut_venue_whose_row_cannot_be_closed_stops_no_other(
    chorus: Chorus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SHORTEST_LIMIT", timedelta(seconds=0.3))
    monkeypatch.setattr(groups, "PATIENCE", 0)
    chorus.options = "-c lock_timeout=200 -c statement_timeout=600"
    with chorus.database.superuser() as other, other.transaction():

        def hang_with_the_row_locked(connection: psycopg.Connection) -> None:
            other.execute(
                "SELECT FROM jobs.venue_run WHERE venue_id = %s FOR UPDATE", [V2.venue_id]
            )
            connection.execute("SELECT pg_sleep(60)")

        chorus.faults[V2.venue_id] = hang_with_the_row_locked
        chorus.venues = (V2, V1)
        failures = chorus.do()
    assert [failure.venue for failure in failures] == [V2]
    assert chorus.outcomes()["v1"] == "succeeded"


def test_a_limit_is_no_longer_than_the_tasks_and_leaves_the_next_transaction_alone(
    chorus: Chorus,
) -> None:
    limits: list[object] = []

    def note(connection: psycopg.Connection) -> None:
        limits.extend(connection.execute("SHOW statement_timeout").fetchone() or ())

    long = replace(V1, expected_seconds=9_999.0)
    chorus.settings = JobSettings(timeout_minutes=1)
    # by itself while others wait; a group; the last one, for which nobody waits
    chorus.venues = (long, V2, V3, replace(V4, expected_seconds=9_999.0))
    chorus.options = "-c statement_timeout=77s"
    chorus.faults = dict.fromkeys((V1.venue_id, V2.venue_id, V4.venue_id), note)
    assert chorus.do() == []
    assert limits == ["1min", "30s", "77s"]


@pytest.mark.fault("one-hangs")
def test_a_venue_whose_fence_is_locked_costs_the_others_the_locks_timeout(chorus: Chorus) -> None:
    chorus.do()
    chorus.sung.clear()
    chorus.options = "-c lock_timeout=300"
    with chorus.database.superuser() as other, other.transaction():
        other.execute("SELECT FROM jobs.fence WHERE venue_id = %s FOR UPDATE", [V2.venue_id])
        (failure,) = chorus.do(2, clear_number=1)
    assert failure.venue == V2
    assert "lock timeout" in str(failure)
    assert chorus.sung == ["v1", "v3", "v4", "v5"]
    assert chorus.outcomes() == V2_FAILED


class Killed(BaseException):
    """Nothing of the process runs after it, but what closes its rows."""


@pytest.mark.fault("one-kills")
def test_a_group_whose_worker_died_is_done_one_by_one_and_nobody_is_red(chorus: Chorus) -> None:
    chorus.faults[V2.venue_id] = fail(Killed())  # type: ignore[arg-type]
    with pytest.raises(Killed):
        chorus.do()
    chorus.faults.clear()
    assert chorus.do(2) == []
    assert chorus.sung == [ALL, "v1", "v2", "v3", "v4", "v5"]
    assert chorus.outcomes() == ALL_WELL


@pytest.mark.fault("one-kills")
def test_a_venue_that_kills_its_worker_every_time_keeps_no_other_from_its_end(
    chorus: Chorus,
) -> None:
    chorus.faults[V2.venue_id] = fail(Killed())  # type: ignore[arg-type]
    for try_number in (1, 2, 3, 4):
        with pytest.raises(Killed):
            chorus.do(try_number)
    assert chorus.sung == [ALL, "v1", "v2", "v3", "v4", "v5", "v2", "v2"]
    assert chorus.outcomes() == V2_FAILED


@pytest.mark.fault("answer-lost")
def test_after_a_lost_answer_to_commit_the_rows_say_how_it_ended(chorus: Chorus) -> None:
    chorus.connection_class = LosesAnswers
    assert chorus.do() == []
    assert chorus.outcomes() == ALL_WELL
    assert chorus.sung == [ALL]
    chorus.sung.clear()
    chorus.connection_class = psycopg.Connection
    assert chorus.do(2) == []
    assert chorus.sung == []


def test_a_connection_lost_before_commit_fails_all(chorus: Chorus) -> None:
    chorus.faults[V5.venue_id] = lambda connection: connection.close()
    failures = chorus.do()
    assert [failure.venue for failure in failures] == list(VENUES)
    assert set(chorus.outcomes().values()) == {"failed"}


class LosesAnswers(psycopg.Connection[Any]):
    """A connection that breaks after each COMMIT of data, before its answer."""

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        with super().transaction(savepoint_name, force_rollback) as transaction:
            yield transaction
        self.close()
        raise psycopg.OperationalError("the connection broke before the answer came")


# locks in one order ------------------------------------------------------------------------


def test_whoever_wants_the_same_venues_in_whatever_order_never_waits_in_a_circle(
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
                        {"job": "x", "venue_ids": order},
                    )
                    with one_moment(connection):
                        connection.execute(
                            "SELECT jobs.enter('x', %s, %s::uuid[], %s::bigint[], NULL)",
                            [NORTH, order, [1] * len(order)],
                        )
                except psycopg.errors.SerializationFailure:
                    pass  # another drew meanwhile
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
