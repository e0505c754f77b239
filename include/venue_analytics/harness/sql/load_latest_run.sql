-- One row: the run of a job that was planned last, or the one of the given run_id.
SELECT
    r.id,
    r.plan_number,
    r.job,
    r.run_id,
    r.as_of,
    r.force,
    r.settings,
    r.source_faults,
    r.outcome
FROM jobs.run AS r
WHERE
    r.job = %(job)s
    AND (r.run_id = %(run_id)s OR %(run_id)s::text IS NULL)
ORDER BY r.planned_at DESC, r.id DESC
LIMIT 1;
