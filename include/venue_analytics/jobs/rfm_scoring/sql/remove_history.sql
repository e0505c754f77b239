-- No rows: deletes what is known of the segments of a venue's customers over time.
WITH rules AS (
    DELETE FROM public.venue_rfm_rules
    WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s
)

DELETE FROM public.customer_segment_change
WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s;
