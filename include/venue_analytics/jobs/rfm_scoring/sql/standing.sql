-- At most one row: the as_of and the currency of a venue's scores.
SELECT v.as_of, v.currency
FROM public.venue_rfm_state AS v
WHERE v.venue_id = %(venue_id)s AND v.tenant_id = %(tenant_id)s;
