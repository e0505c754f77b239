-- One row a plan of a job's other runs that neither its finish nor a later plan has ended.
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
WHERE
    r.job = %(job)s
    AND r.outcome = 'planned'
    AND (r.deployment, r.run_id) <> (%(deployment)s, %(run_id)s)
    AND NOT EXISTS (
        SELECT FROM jobs.run AS later
        WHERE
            later.deployment = r.deployment
            AND later.job = r.job
            AND later.run_id = r.run_id
            AND later.plan_try > r.plan_try
    )
ORDER BY r.planned_at;
