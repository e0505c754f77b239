-- No rows: shuts out a dead attempt, unless a newer one has drawn a token since.
UPDATE jobs.fence SET token = token + 1
WHERE job = %(job)s AND unit_id = %(unit_id)s AND token = %(token)s;
