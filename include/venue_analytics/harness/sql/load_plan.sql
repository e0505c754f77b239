-- One row: a plan of a run.
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
WHERE r.id = %(run)s;
