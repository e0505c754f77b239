-- One row an attempt of these that has ended well: how.
SELECT
    r.id,
    r.outcome,
    r.reason,
    r.rows_read,
    r.rows_written,
    r.rows_unchanged,
    r.rows_removed,
    r.left_out
FROM jobs.unit_run AS r
WHERE r.id = any(%(ids)s::bigint[]) AND r.outcome IN ('succeeded', 'skipped');
