-- One row: what the latest plan of a run reports of earlier runs; none before the first plan.
SELECT r.left_behind
FROM jobs.plan AS r
WHERE
    r.deployment = %(deployment)s
    AND r.job = %(job)s
    AND r.run_id = %(run_id)s
    AND r.is_current;
