-- No rows: ends what a killed process of this run left open.
UPDATE jobs.venue_run SET
    outcome = 'failed',
    finished_at = clock_timestamp(),
    error = 'its process ended without a word'
WHERE run = %(run)s AND outcome = 'running';
