-- No rows: ends an attempt that failed: running -> failed.
UPDATE jobs.venue_run SET
    outcome = 'failed',
    started_at = coalesce(%(started_at)s, started_at),
    finished_at = clock_timestamp(),
    permanent = %(permanent)s,
    error_type = %(error_type)s,
    error = %(error)s,
    traceback = %(traceback)s
WHERE id = %(id)s AND outcome = 'running';
