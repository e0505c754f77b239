-- No rows: deletes the recorded changes of erased customers.
DELETE FROM public.customer_segment_change AS c
USING source.customers AS e
WHERE
    c.venue_id = any(%(venue_ids)s::uuid[])
    AND c.tenant_id = %(tenant_id)s
    AND c.customer_id = e.customer_id
    AND e.erased
    AND (e.tenant_id = %(tenant_id)s OR e.tenant_id IS NULL);
