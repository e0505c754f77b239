-- One row: a run as last planned.
SELECT
    r.id,
    r.deployment,
    r.plan_number,
    r.job,
    r.run_id,
    r.as_of,
    r.force,
    r.dry_run,
    r.settings,
    r.source_faults,
    r.left_behind,
    r.planned_at,
    r.outcome
FROM jobs.run AS r
WHERE r.deployment = %(deployment)s AND r.job = %(job)s AND r.run_id = %(run_id)s
ORDER BY r.plan_try DESC
LIMIT 1;
