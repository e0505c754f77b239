-- No rows: the action of a letter is not performed by itself. A replay may have deleted its row: a
-- new one has no attempt's token. If the letter was discarded, a claim of the replay gets no other.
INSERT INTO jobs.action (job, unit_id, key, state, run, token, ended_at)
SELECT
    d.job,
    d.unit_id,
    d.key,
    'refused',
    d.run,
    0,
    clock_timestamp()
FROM jobs.dead_letter AS d
WHERE d.id = %(letter)s
ON CONFLICT (
    job, unit_id, key) DO UPDATE SET state = 'unknown'
WHERE action.state = 'claimed' AND %(discarded)s;
