-- One row a unit: its new fencing token. Rows are locked in the order of the ids, so that two
-- batches never wait for each other.
INSERT INTO jobs.fence AS f (job, unit_id, token)
SELECT
    %(job)s,
    v.unit_id,
    1
FROM unnest(%(unit_ids)s::uuid[]) AS v (unit_id)
ORDER BY v.unit_id
ON CONFLICT (job, unit_id) DO UPDATE SET token = f.token + 1
RETURNING f.unit_id, f.token;
