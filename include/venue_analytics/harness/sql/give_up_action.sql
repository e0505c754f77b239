-- No rows: the action of a discarded letter is not performed any more. A replay in vain has deleted
-- it; its token is of no attempt.
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
ON CONFLICT (job, unit_id, key) DO NOTHING;
