-- One row a venue that a job has done before: the seconds that it took last.
SELECT
    v.venue_id,
    d.seconds
FROM unnest(%(venue_ids)s::uuid[]) AS v (venue_id)
CROSS JOIN LATERAL ( -- noqa: ST05
    SELECT r.seconds
    FROM jobs.venue_run AS r
    WHERE
        r.job = %(job)s
        AND r.venue_id = v.venue_id
        AND r.token IS NOT NULL
        AND r.outcome = 'succeeded'
    ORDER BY r.token DESC
    LIMIT 1
) AS d;
