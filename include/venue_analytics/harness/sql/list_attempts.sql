-- One row an attempt at a unit, the latest first.
SELECT
    a.job,
    r.run_id,
    a.as_of,
    a.round,
    a.try_number,
    a.token,
    a.outcome,
    coalesce(a.reason, a.error) AS reason,
    a.started_at,
    a.seconds,
    a.rows_written,
    a.host
FROM jobs.unit_run AS a
INNER JOIN jobs.run AS r ON a.run = r.id
WHERE
    a.unit_id = %(unit_id)s
    AND (a.job = %(job)s OR %(job)s::text IS NULL)
ORDER BY a.id DESC
LIMIT %(rows)s;
