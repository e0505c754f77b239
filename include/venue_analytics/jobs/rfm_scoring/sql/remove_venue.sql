-- No rows: deletes the state of a venue.
DELETE FROM public.venue_rfm_state
WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s;
