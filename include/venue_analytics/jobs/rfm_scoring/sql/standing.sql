-- At most one row: what a venue's scores are as of, and in which currency.
SELECT v.as_of, v.currency
FROM public.venue_rfm_state AS v
WHERE v.venue_id = %(venue_id)s AND v.tenant_id = %(tenant_id)s;
