-- One row: a venue's state under its tenant; none if it is another tenant's.
SELECT v.main_currency
FROM public.venue_rfm_state AS v
WHERE v.venue_id = %(venue_id)s AND v.tenant_id = %(tenant_id)s;
