"""PostgreSQL restarts or fails in the middle of a run: which faults are retried, and how."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from tests.databases import Database
from tests.harness.faults.night import Night, wait_until
from tests.harness.faults.steps import once
from tests.harness.three_steps import THREE_STEPS, Run

from venue_analytics.demo.servers import PostgresServer, ValkeyServer
from venue_analytics.harness import PermanentError

pytestmark = pytest.mark.one_version

DESKS = """
CREATE TABLE desk (id integer PRIMARY KEY, taken integer NOT NULL DEFAULT 0);
INSERT INTO desk VALUES (1), (2);
GRANT SELECT, UPDATE ON desk TO analytics_jobs;
"""
TAKE_DESK = "UPDATE desk SET taken = taken + 1 WHERE id = %s"


@pytest.fixture
def database(two_venues: Callable[[], Database], redis_client: redis.Redis) -> Database:
    made = two_venues()
    with made.superuser() as superuser:
        superuser.execute(DESKS)
    return made


def fail_once_and_retry(
    night: Night, undisturbed: dict[str, list[str]], act: Callable[[Run], object]
) -> str:
    """Run a night with a fault in its second step, and retry it; return the failure as text."""
    job = once(act, step="rank")
    (failure,) = night.do(job=job)
    assert [(row.unit_name, row.outcome, row.permanent) for row in night.attempts()] == [
        ("Arena", "failed", False),
        ("Ballroom", "succeeded", False),
    ]
    assert night.do(try_number=2, job=job) == []
    assert night.outcomes("Arena") == ["failed", "succeeded"]
    assert night.outcomes("Ballroom") == ["succeeded"]
    assert night.finish() == []
    assert night.faults() == []
    assert night.kept() == undisturbed
    return failure


@pytest.mark.fault("postgres-restarted")
def test_a_restart_of_postgres_costs_the_running_venue_one_try(
    database: Database,
    valkey: ValkeyServer,
    undisturbed: dict[str, list[str]],
    postgres: PostgresServer,
) -> None:
    def restart(run: Run) -> None:
        postgres.stop()
        postgres.start()
        run.connection.execute("SELECT 1")

    night = Night.plan(database, valkey.uri, THREE_STEPS)
    failure = fail_once_and_retry(night, undisturbed, restart)
    assert failure.startswith("Arena: AdminShutdown")


@pytest.mark.fault("postgres-restarted")
def test_a_terminated_session_costs_the_running_venue_one_try(
    database: Database, valkey: ValkeyServer, undisturbed: dict[str, list[str]]
) -> None:
    def end_all_sessions(_: Run) -> None:
        with database.superuser() as superuser:
            superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    night = Night.plan(database, valkey.uri, THREE_STEPS)
    failure = fail_once_and_retry(night, undisturbed, end_all_sessions)
    assert failure.startswith("Arena: AdminShutdown")


@pytest.mark.fault("deadlock")
def test_a_deadlock_is_retried(
    database: Database, valkey: ValkeyServer, undisturbed: dict[str, list[str]]
) -> None:
    with database.superuser() as other, ThreadPoolExecutor() as threads:
        # the session that checks first is aborted: the worker, not the other session
        other.execute(f"ALTER DATABASE {database.name} SET deadlock_timeout = '50ms'")
        other.execute("SET deadlock_timeout = '1min'")

        def wait_for_each_other(run: Run) -> None:
            other.execute("BEGIN")
            other.execute(TAKE_DESK, [2])
            run.connection.execute(TAKE_DESK, [1])
            waiting = threads.submit(other.execute, TAKE_DESK, [1])
            with database.superuser() as superuser:
                wait_until(
                    lambda: superuser.execute(
                        "SELECT 1 FROM pg_stat_activity "
                        "WHERE pid = %s AND wait_event_type = 'Lock'",
                        [other.info.backend_pid],
                    ).fetchone(),
                    within=10,
                )
            try:
                run.connection.execute(TAKE_DESK, [2])
            finally:
                waiting.result()
                other.execute("COMMIT")

        night = Night.plan(database, valkey.uri, THREE_STEPS)
        failure = fail_once_and_retry(night, undisturbed, wait_for_each_other)
    assert failure == "Arena: DeadlockDetected: deadlock detected"


@pytest.mark.fault("serialization-failure")
def test_a_serialization_failure_is_retried(
    database: Database, valkey: ValkeyServer, undisturbed: dict[str, list[str]]
) -> None:
    with database.superuser() as other:
        other.execute(
            f"ALTER DATABASE {database.name} SET default_transaction_isolation = 'repeatable read'"
        )

        def both_take_a_desk(run: Run) -> None:
            other.execute(TAKE_DESK, [1])
            run.connection.execute(TAKE_DESK, [1])

        night = Night.plan(database, valkey.uri, THREE_STEPS)
        failure = fail_once_and_retry(night, undisturbed, both_take_a_desk)
    assert failure.startswith("Arena: SerializationFailure: could not serialize access")


def bad_data(_: Run) -> None:
    raise PermanentError("two prices for one seat")


def value_that_cannot_be_read(run: Run) -> None:
    run.connection.execute("SELECT 'ada@example.org'::uuid")


def table_that_is_not_there(run: Run) -> None:
    run.connection.execute("SELECT FROM nowhere")


@pytest.mark.fault("permanent-error")
@pytest.mark.parametrize("fault", [bad_data, value_that_cannot_be_read, table_that_is_not_there])
def test_after_a_permanent_error_a_venue_is_tried_again_only_after_a_clear(
    fault: Callable[[Run], None],
    database: Database,
    valkey: ValkeyServer,
    undisturbed: dict[str, list[str]],
) -> None:
    times: list[Run] = []
    is_mended = False

    def fail_until_mended(run: Run) -> None:
        times.append(run)
        if not is_mended:
            fault(run)

    def do(try_number: int, clear_number: int) -> list[str]:
        return night.do(try_number, job=once(fail_until_mended), clear_number=clear_number)

    night = Night.plan(database, valkey.uri, THREE_STEPS)
    (failure,) = do(try_number=1, clear_number=0)
    assert (len(times), night.outcomes("Ballroom")) == (1, ["succeeded"])

    # Airflow's retry before the cause is fixed: reported again, not tried again
    (reported_again,) = do(try_number=2, clear_number=0)
    assert (len(times), reported_again) == (1, failure)
    assert night.finish() == [failure]

    # the cause is fixed and the failed tasks are cleared
    is_mended = True
    assert do(try_number=3, clear_number=1) == []
    assert len(times) == 2
    assert night.outcomes("Arena") == ["failed", "succeeded"]
    assert night.outcomes("Ballroom") == ["succeeded"]
    assert night.finish() == []
    assert night.faults() == []
    assert night.kept() == undisturbed
