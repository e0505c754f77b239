-- No rows: deletes the segment summary of a venue.
DELETE FROM public.customer_segments
WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s;
