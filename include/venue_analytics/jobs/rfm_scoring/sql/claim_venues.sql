-- No rows: inserts the state of venues that have none yet.
INSERT INTO public.venue_rfm_state (venue_id, tenant_id)
SELECT v.venue_id, %(tenant_id)s
FROM unnest(%(venue_ids)s::uuid[]) AS v (venue_id)
ORDER BY v.venue_id
ON CONFLICT (venue_id) DO NOTHING;
