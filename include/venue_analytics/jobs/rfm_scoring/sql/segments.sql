-- One row a segment of a venue: how many customers it has, and what they spent.
SELECT
    s.segment_name,
    s.customer_count,
    s.total_revenue
FROM public.customer_segments AS s
WHERE s.venue_id = %(venue_id)s AND s.tenant_id = %(tenant_id)s;
