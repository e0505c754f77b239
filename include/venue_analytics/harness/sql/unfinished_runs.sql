-- One row a run of a job, other than the one named, that nothing has ended.
SELECT r.*
FROM jobs.plan AS r
WHERE
    r.job = %(job)s
    AND r.outcome = 'planned'
    AND r.is_current
    AND (r.deployment, r.run_id) <> (%(deployment)s, %(run_id)s)
ORDER BY r.planned_at;
