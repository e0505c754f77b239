-- One row a venue that the present round of its batch has begun: the attempt that ended well,
-- else the last.
SELECT DISTINCT ON (r.venue_id)
    r.venue_id,
    r.venue_name,
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
FROM jobs.venue_run AS r
INNER JOIN jobs.batch AS b ON r.run = b.run AND r.batch = b.number AND r.round = b.round
WHERE
    r.run = %(run)s
    AND (r.batch = %(number)s OR %(number)s::integer IS NULL)
ORDER BY r.venue_id ASC, (r.outcome IN ('succeeded', 'skipped')) DESC, r.id DESC;
