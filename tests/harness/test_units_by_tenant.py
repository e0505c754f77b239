"""A job whose unit is the tenant: plans, leases, history and overrides are by tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import Field
from tests.databases import Database
from tests.harness.nights import OURS, THEIRS
from tests.harness.runner import Runner
from tests.harness.simple_venues import NORTH, SOUTH

from venue_analytics.harness import (
    SHAPES_RESULTS,
    Job,
    PermanentError,
    TenantSettings,
    TransientError,
    Unit,
    UnitKind,
    UnitResult,
    UnitRun,
    dead_letters,
    history,
)

TABLE = """
CREATE TABLE tally (tenant_id uuid PRIMARY KEY, orders bigint, bonus integer);
GRANT SELECT, INSERT, UPDATE, DELETE ON tally TO analytics_jobs;
ALTER TABLE tally ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tally USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
"""
#: In this source, a venue that is called Closed is closed.
WITH_CLOSED_VENUES = """
CREATE OR REPLACE VIEW source.venues WITH (security_invoker) AS
SELECT
    v.id AS venue_id, v.tenant_id, v.name, NULL::text AS timezone, NULL::text AS currency,
    NULL::integer AS capacity, v.name <> 'Closed' AS open
FROM public.venues AS v
"""
NOBODY = UUID(int=99)


class TallySettings(TenantSettings):
    """Settings with a rule that may differ by tenant."""

    bonus: int = Field(
        0, description="Orders on top.", json_schema_extra={**SHAPES_RESULTS, "unit": "orders"}
    )


Run = UnitRun[TallySettings]


def write_tally(run: Run) -> UnitResult:
    run.connection.execute(
        "INSERT INTO tally SELECT tenant_id, count(*) + %(bonus)s, %(bonus)s FROM source.orders "
        "WHERE tenant_id = %(tenant)s GROUP BY tenant_id "
        "ON CONFLICT (tenant_id) DO UPDATE SET orders = excluded.orders, bonus = excluded.bonus",
        {"bonus": run.settings.bonus, "tenant": run.unit.id},
    )
    return UnitResult(rows_written=1)


def remove(connection: psycopg.Connection, tenant_id: UUID, unit_id: UUID) -> int:
    assert tenant_id == unit_id
    return connection.execute("DELETE FROM tally WHERE tenant_id = %s", [unit_id]).rowcount


def tenants_held(connection: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    return [held for (held,) in connection.execute("SELECT tenant_id FROM tally").fetchall()]


def tally_job(step: Callable[[Run], UnitResult] = write_tally) -> Job[TallySettings]:
    return Job("tally", TallySettings, {"tally": step}, remove, tenants_held)


TALLY = tally_job()


@pytest.fixture
def superuser(simple: Database, runner: Runner) -> Any:
    with simple.superuser() as superuser:
        superuser.execute(TABLE)
        yield superuser


def tallies(superuser: psycopg.Connection) -> dict[UUID, tuple[int, int]]:
    rows = superuser.execute("SELECT tenant_id, orders, bonus FROM tally").fetchall()
    return {tenant: (orders, bonus) for tenant, orders, bonus in rows}


def planned(tenant: UUID, **others: Any) -> Unit:
    return Unit(tenant, tenant, f"tenant {tenant}", kind=UnitKind.TENANT, **others)


def test_each_tenant_is_planned_once_even_if_all_its_venues_are_closed(
    runner: Runner, superuser: psycopg.Connection
) -> None:
    superuser.execute(WITH_CLOSED_VENUES)
    superuser.execute("UPDATE venues SET name = 'Closed' WHERE tenant_id = %s", [SOUTH])
    superuser.execute("INSERT INTO venues VALUES (%s, NULL, 'Nomad')", [NOBODY])
    run = runner.plan(TALLY, max_tasks=1)
    assert runner.units(run) == [planned(NORTH), planned(SOUTH)]
    (batch,) = history.load_batches(runner.connection, run)
    assert batch.label == f"2 tenants: tenant {NORTH}, tenant {SOUTH}"
    assert run.source_faults == [f"venue Nomad ({NOBODY}) has no tenant: left out"]
    assert runner.process(TALLY, run) == []
    assert tallies(superuser) == {NORTH: (12, 0), SOUTH: (12, 0)}


def test_fence_lease_history_and_letters_are_by_tenant(
    runner: Runner, superuser: psycopg.Connection
) -> None:
    holders = []

    def fail_in_the_south(run: Run) -> UnitResult:
        holders.append(runner.leases(TALLY).holder(run.unit.id))
        if run.unit.id == SOUTH:
            raise TransientError("not yet")
        return write_tally(run)

    job = tally_job(fail_in_the_south)
    run = runner.plan(job)
    assert runner.process(job, run) == [f"tenant {SOUTH}: not yet"]
    assert runner.finish(job, run) == [f"tenant {SOUTH}: not yet"]
    assert [holder.deployment for holder in holders if holder] == [OURS, OURS]
    fences = superuser.execute("SELECT unit_id, token FROM jobs.fence WHERE job = 'tally'")
    assert sorted(fences.fetchall()) == [(NORTH, 1), (SOUTH, 1)]
    assert {(row.unit_id, row.tenant_id) for row in runner.attempts(job)} == {
        (NORTH, NORTH),
        (SOUTH, SOUTH),
    }
    (letter,) = dead_letters.find(runner.connection)
    assert (letter.kind, letter.unit_id, letter.tenant_id) == ("unit", SOUTH, SOUTH)

    # another deployment finds one tenant done, does the other, and resolves its letter
    theirs = runner.run(TALLY, deployment=THEIRS)
    assert runner.outcomes(TALLY, theirs) == {
        f"tenant {NORTH}": "skipped: already done",
        f"tenant {SOUTH}": "succeeded",
    }
    assert dead_letters.find(runner.connection) == []


def test_a_tenant_that_is_no_longer_listed_loses_its_rows(
    runner: Runner, superuser: psycopg.Connection
) -> None:
    runner.run(TALLY)
    superuser.execute("DELETE FROM venues WHERE tenant_id = %s", [SOUTH])
    run = runner.run(TALLY, "next night")
    assert tallies(superuser) == {NORTH: (12, 0)}
    assert runner.outcomes(TALLY, run)[str(SOUTH)] == "succeeded: tenant gone: its rows removed"


def test_settings_name_tenants_and_differ_by_tenant(
    runner: Runner, superuser: psycopg.Connection
) -> None:
    assert runner.units(runner.plan(TALLY, "1", exclude_tenants=[NORTH])) == [planned(SOUTH)]
    assert runner.units(runner.plan(TALLY, "2", include_tenants=[NORTH])) == [planned(NORTH)]
    unknown = runner.plan(TALLY, "3", exclude_tenants=[NOBODY])
    assert unknown.source_faults == [
        f"setting exclude_tenants names tenant {NOBODY}, which source.venues does not list"
    ]
    runner.run(TALLY, "4", tenants={SOUTH: {"bonus": 5}})
    assert tallies(superuser) == {NORTH: (12, 0), SOUTH: (17, 5)}
    # only one tenant's rules have changed
    again = runner.run(TALLY, "5")
    assert runner.outcomes(TALLY, again) == {
        f"tenant {NORTH}": "skipped: already done",
        f"tenant {SOUTH}": "succeeded",
    }


def test_a_setting_that_may_not_differ_by_tenant_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=rf"tenants\.{SOUTH}\.retries = 1: may not differ by tena"):
        TallySettings(tenants={SOUTH: {"retries": 1}})


def test_a_request_names_tenants_and_an_unknown_one_is_refused(
    runner: Runner, superuser: psycopg.Connection
) -> None:
    run = runner.plan(TALLY, conf={"tenants": [str(SOUTH)]}, exclude_tenants=[SOUTH])
    assert runner.units(run) == [planned(SOUTH)]
    words = f"tenants = {NOBODY}: must be ids of tenants that have a venue in source.venues"
    with pytest.raises(PermanentError, match=words):
        runner.plan(TALLY, "unknown", conf={"tenants": [str(NOBODY)]})
    with pytest.raises(PermanentError, match=r"tenants\.0 = 'us': Input should be a valid UUID"):
        runner.plan(TALLY, "unreadable", conf={"tenants": ["us"]})
    with pytest.raises(PermanentError, match=r"venues = .* allowed: tenants, as_of, force$"):
        runner.plan(TALLY, "by venue", conf={"venues": [str(SOUTH)]})
