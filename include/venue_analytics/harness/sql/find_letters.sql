-- One row a letter: those that are open, or all; of one job, or of every one; or the one asked for.
SELECT
    d.id,
    d.job,
    d.unit_id,
    d.tenant_id,
    d.unit_name,
    d.kind,
    d.key,
    d.as_of,
    d.run,
    p.run_id,
    d.error_type,
    d.error,
    d.traceback,
    d.attempts,
    d.first_failed_at,
    d.last_failed_at,
    d.state,
    d.ended_at,
    d.reason,
    d.ended_by
FROM jobs.dead_letter AS d
INNER JOIN jobs.run AS p ON d.run = p.id
WHERE
    (d.job = %(job)s OR %(job)s::text IS NULL)
    AND (d.id = %(id)s OR %(id)s::bigint IS NULL)
    AND (d.state IN ('open', 'replaying') OR %(ended)s)
ORDER BY d.last_failed_at DESC, d.id DESC;
