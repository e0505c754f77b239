-- One row where the action is ours to perform; none where it is known already.
INSERT INTO jobs.action (job, unit_id, key, run, token)
VALUES (%(job)s, %(unit_id)s, %(key)s, %(run)s, %(token)s)
ON CONFLICT (job, unit_id, key) DO NOTHING
RETURNING key;
