-- One row: a run as last planned.
SELECT r.*
FROM jobs.plan AS r
WHERE
    r.deployment = %(deployment)s
    AND r.job = %(job)s
    AND r.run_id = %(run_id)s
    AND r.is_current;
