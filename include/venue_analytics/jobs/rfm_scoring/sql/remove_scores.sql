-- No rows: deletes the scores of a venue.
DELETE FROM public.customer_rfm_state
WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s;
