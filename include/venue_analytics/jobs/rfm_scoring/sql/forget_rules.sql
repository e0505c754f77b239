-- No rows: rules that came in force after this as_of, or at it and do no more, are overwritten.
DELETE FROM public.venue_rfm_rules AS r
WHERE
    r.venue_id = %(venue_id)s
    AND r.tenant_id = %(tenant_id)s
    AND (r.since > %(as_of)s OR (r.since = %(as_of)s AND NOT %(rules_are_new)s));
