-- One row a unit that a job has done before: the seconds that it took last.
SELECT
    v.unit_id,
    d.seconds
FROM unnest(%(unit_ids)s::uuid[]) AS v (unit_id)
CROSS JOIN LATERAL ( -- noqa: ST05
    SELECT r.seconds
    FROM jobs.unit_run AS r
    WHERE
        r.job = %(job)s
        AND r.unit_id = v.unit_id
        AND r.token IS NOT NULL
        AND r.outcome = 'succeeded'
    ORDER BY r.token DESC
    LIMIT 1
) AS d;
