-- One row: what the latest plan of a run has to tell of earlier runs; none before the first plan.
SELECT r.left_behind
FROM jobs.run AS r
WHERE r.deployment = %(deployment)s AND r.job = %(job)s AND r.run_id = %(run_id)s
ORDER BY r.plan_try DESC
LIMIT 1;
