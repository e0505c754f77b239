-- One row per venue of a tenant that has scores.
SELECT v.venue_id
FROM public.venue_rfm_state AS v
WHERE v.tenant_id = %(tenant_id)s;
