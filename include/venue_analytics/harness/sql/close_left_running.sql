-- No rows: ends the row of an attempt whose process is dead: running -> failed.
UPDATE jobs.unit_run SET
    outcome = 'failed',
    finished_at = clock_timestamp(),
    error_type = 'Killed',
    error = 'its process was killed, or lost its lease'
WHERE id = %(id)s AND outcome = 'running';
