-- One row a venue: its new fencing token. Rows are locked in the order of the ids, so that two
-- batches never wait for each other.
INSERT INTO jobs.fence AS f (job, venue_id, token)
SELECT
    %(job)s,
    v.venue_id,
    1
FROM unnest(%(venue_ids)s::uuid[]) AS v (venue_id)
ORDER BY v.venue_id
ON CONFLICT (job, venue_id) DO UPDATE SET token = f.token + 1
RETURNING f.venue_id, f.token;
