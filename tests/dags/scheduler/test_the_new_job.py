"""A failed tenant of a new job is cleared and done again by the real scheduler."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql
from tests.dags.scheduler.stack import Stack
from tests.harness.simple_venues import NORTH, SOUTH, VENUES, fill
from tests.new_job.test_a_new_job import HERE, TABLES, cards, posted

from venue_analytics.demo.job_run import wait_for_dag


def test_a_clear_does_only_the_failed_tenant_again(
    stack: Stack, superuser: psycopg.Connection, tmp_path: Path
) -> None:
    fill(superuser, VENUES)
    superuser.execute(TABLES)
    refuse_claims_of(superuser, SOUTH)
    variable = {"retries": 0, "enabled": False, "box": str(tmp_path / "post-box")}
    stack.set_variable("postcards", variable)
    began = datetime.now(UTC)
    shutil.copy(HERE / "dags" / "postcards.py", stack.dags)
    wait_for_dag(stack.api, "postcards", began, stack.processes.check)
    stack.api.unpause("postcards")

    run_id = stack.trigger("postcards")
    assert stack.ended(run_id, "postcards").state == "failed"
    assert f"tenant {SOUTH}: RaiseException: the post is closed" in stack.errors(
        run_id, "finish", "postcards"
    )
    assert posted(tmp_path) == cards("spring")[:2]

    superuser.execute("DROP FUNCTION refuse_claim CASCADE")
    stack.clear("postcards", run_id)
    assert stack.ended(run_id, "postcards").state == "success"
    assert posted(tmp_path) == cards("spring")
    tries = {name: task.try_number for name, task in stack.tasks(run_id, "postcards").items()}
    assert (tries[f"tenant {NORTH}"], tries[f"tenant {SOUTH}"]) == (1, 2)


def refuse_claims_of(superuser: psycopg.Connection, tenant: object) -> None:
    """Make PostgreSQL refuse every action of one tenant."""
    superuser.execute(
        sql.SQL(
            "CREATE FUNCTION refuse_claim() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF new.unit_id = {}::uuid THEN RAISE EXCEPTION 'the post is closed'; "
            "END IF; RETURN new; END $$"
        ).format(sql.Literal(str(tenant)))
    )
    superuser.execute(
        "CREATE TRIGGER refuse_claim BEFORE INSERT ON jobs.action "
        "FOR EACH ROW EXECUTE FUNCTION refuse_claim()"
    )
