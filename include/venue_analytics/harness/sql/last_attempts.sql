-- One row a unit that the current round of its batch has begun: the attempt that ended well,
-- else the last.
SELECT DISTINCT ON (r.unit_id)
    r.unit_id,
    r.unit_name,
    r.unit_gone,
    r.batch,
    r.outcome,
    r.reason,
    r.seconds,
    r.rows_read,
    r.rows_written,
    r.rows_unchanged,
    r.rows_removed,
    r.left_out,
    r.summary,
    r.clear_number,
    r.alone,
    r.is_common,
    r.permanent,
    r.error_type,
    r.error,
    r.traceback
FROM jobs.unit_run AS r
INNER JOIN jobs.batch AS b ON r.run = b.run AND r.batch = b.number AND r.round = b.round
WHERE
    r.run = %(run)s
    AND (r.batch = %(number)s OR %(number)s::integer IS NULL)
ORDER BY r.unit_id ASC, (r.outcome IN ('succeeded', 'skipped')) DESC, r.id DESC;
