-- One row: the run of a job that was planned last, no dry run; or the one of the given run_id.
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
    AND (r.run_id = %(run_id)s OR (%(run_id)s::text IS NULL AND NOT r.dry_run))
    AND NOT EXISTS (
        SELECT FROM jobs.run AS later
        WHERE
            later.deployment = r.deployment
            AND later.job = r.job
            AND later.run_id = r.run_id
            AND later.plan_try > r.plan_try
    )
ORDER BY r.planned_at DESC, r.id DESC
LIMIT 1;
