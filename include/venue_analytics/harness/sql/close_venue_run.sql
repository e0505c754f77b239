-- No rows: ends an attempt: running -> succeeded | skipped | failed.
UPDATE jobs.venue_run SET
    outcome = %(outcome)s,
    reason = %(reason)s,
    finished_at = clock_timestamp(),
    rows_read = %(rows_read)s,
    rows_written = %(rows_written)s,
    rows_unchanged = %(rows_unchanged)s,
    rows_removed = %(rows_removed)s,
    left_out = %(left_out)s,
    summary = %(summary)s,
    error = %(error)s
WHERE id = %(id)s AND outcome = 'running';
