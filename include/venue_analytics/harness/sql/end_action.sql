-- One row: the action ends under this claim without being performed: claimed -> refused | unknown.
UPDATE jobs.action SET state = %(state)s, ended_at = clock_timestamp()
WHERE
    job = %(job)s
    AND unit_id = %(unit_id)s
    AND key = %(key)s
    AND token = %(token)s
    AND state = 'claimed'
RETURNING key;
