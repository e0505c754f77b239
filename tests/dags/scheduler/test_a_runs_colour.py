"""The state of a run on a real scheduler, whichever of its tasks fail and are cleared."""

from __future__ import annotations

import psycopg
import pytest
from tests.dags.scheduler.history import History
from tests.dags.scheduler.stack import JOB, Stack
from tests.harness.simple_venues import ARENA, CUSTOMERS_EACH, FAULT, break_venue, fill, mend

from venue_analytics.demo.job_run import failures

PLAN_ALONE = {"only_failed": False, "task_ids": ["plan"]}
SCORE_ALONE = {"only_failed": False, "task_ids": ["score"]}
WHOLE_RUN = {"only_failed": False}


@pytest.mark.fault("batch-cleared")
def test_a_run_is_green_only_while_no_venue_fails_and_finish_has_confirmed_it(
    stack: Stack, superuser: psycopg.Connection, history: History
) -> None:
    def colour_after_clear(**options: object) -> str:
        """Clear these tasks without those downstream; by default the failed ones."""
        stack.clear(JOB, run_id, **options)
        return stack.ended(run_id).state

    def states() -> tuple[str | None, ...]:
        found = stack.states(run_id)
        return tuple(found[name] for name in ("plan", "Arena", "finish"))

    fill(superuser, (ARENA,))
    refuse_a_good_end(superuser)
    run_id = stack.trigger()
    red = stack.ended(run_id)
    assert red.state == "failed"
    assert states() == ("success", "success", "failed")
    name, reason = failures(stack.api, JOB, red)
    assert name == "finish: failed"
    assert FAULT in reason

    superuser.execute("DROP TRIGGER refuse_a_good_end ON jobs.run")
    assert colour_after_clear() == "success"
    assert history.attempts(run_id) == [("Arena", "succeeded")]

    break_venue(superuser, ARENA)
    superuser.execute("DELETE FROM customer_rfm_state")
    assert colour_after_clear(**SCORE_ALONE) == "failed"
    assert states() == ("success", "failed", "success")

    assert colour_after_clear(**WHOLE_RUN) == "failed"
    assert states() == ("success", "failed", "failed")

    mend(superuser)
    # finish has not run again
    assert colour_after_clear(**SCORE_ALONE) == "failed"
    assert states() == ("success", "success", "failed")

    assert colour_after_clear() == "success"
    assert [outcome for _, outcome in history.attempts(run_id)] == [
        "succeeded",
        "failed",
        "failed",
        "succeeded",
    ]
    assert history.scored() == {"Arena": CUSTOMERS_EACH}
    assert history.letters() == [("Arena", "resolved")]

    # the earlier plan stays current: a new one without its batches would leave a green run undone
    assert colour_after_clear(**PLAN_ALONE) == "success"
    assert states() == ("failed", "success", "success")
    assert "cleared without what follows" in stack.errors(run_id, "plan")
    assert history.outcome(run_id) == "succeeded"


def refuse_a_good_end(superuser: psycopg.Connection) -> None:
    """Make PostgreSQL refuse to store a run's success."""
    superuser.execute(
        "CREATE FUNCTION refuse_a_good_end() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{FAULT}'; END $$"
    )
    superuser.execute(
        "CREATE TRIGGER refuse_a_good_end BEFORE UPDATE OF outcome ON jobs.run FOR EACH ROW "
        "WHEN (new.outcome = 'succeeded') EXECUTE FUNCTION refuse_a_good_end()"
    )
