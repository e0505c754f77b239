-- No rows: ends what a killed process of this run left open.
UPDATE jobs.venue_run SET
    outcome = 'failed',
    finished_at = clock_timestamp(),
    error = 'its process was killed, or ran past its timeout'
WHERE run = %(run)s AND outcome = 'running';
