-- One row: how many customers' scores were deleted, with all that is kept of the venue.
WITH scores AS (
    DELETE FROM public.customer_rfm_state
    WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s
    RETURNING 1
),

segments AS (
    DELETE FROM public.customer_segments
    WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s
),

changes AS (
    DELETE FROM public.customer_segment_change
    WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s
),

rules AS (
    DELETE FROM public.venue_rfm_rules
    WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s
),

state AS (
    DELETE FROM public.venue_rfm_state
    WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s
)

SELECT count(*) FROM scores;
