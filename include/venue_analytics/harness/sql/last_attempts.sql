-- One row a venue that a plan's tasks have begun: its last attempt.
SELECT DISTINCT ON (r.venue_id)
    r.venue_id,
    r.venue_name,
    r.batch,
    r.outcome,
    r.reason,
    extract(EPOCH FROM r.finished_at - r.started_at)::double precision AS seconds,
    r.rows_read,
    r.rows_written,
    r.rows_unchanged,
    r.rows_removed,
    r.left_out,
    r.summary,
    r.error
FROM jobs.venue_run AS r
WHERE r.run = %(run)s AND r.plan_number = %(plan_number)s
ORDER BY r.venue_id ASC, r.id DESC;
