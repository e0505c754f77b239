-- One row: the run of a job that was planned last, no dry run; or the one of the given run_id.
SELECT r.*
FROM jobs.plan AS r
WHERE
    r.job = %(job)s
    AND r.is_current
    AND (r.run_id = %(run_id)s OR (%(run_id)s::text IS NULL AND NOT r.dry_run))
ORDER BY r.planned_at DESC, r.id DESC
LIMIT 1;
