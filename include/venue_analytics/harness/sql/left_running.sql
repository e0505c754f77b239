-- One row an attempt that history has as running: of every run of a job, or of one.
SELECT
    r.id,
    r.unit_id,
    r.token,
    p.deployment,
    p.run_id,
    r.batch,
    r.try_number
FROM jobs.unit_run AS r
INNER JOIN jobs.run AS p ON r.run = p.id
WHERE
    r.job = %(job)s
    AND r.outcome = 'running'
    AND (p.deployment = %(deployment)s OR %(deployment)s::uuid IS NULL)
    AND (p.run_id = %(run_id)s OR %(run_id)s::text IS NULL)
ORDER BY r.unit_id, r.token;
