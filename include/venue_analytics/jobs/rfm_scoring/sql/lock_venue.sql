-- One row: a venue's state, locked until the transaction ends: one writer a venue at a time.
SELECT
    v.as_of,
    v.main_currency
FROM public.venue_rfm_state AS v
WHERE v.venue_id = %(venue_id)s AND v.tenant_id = %(tenant_id)s
FOR UPDATE;
