-- No rows: the venue's scores are as of this moment; all that only ages with it reads from here.
UPDATE public.venue_rfm_state SET
    as_of = %(as_of)s,
    currency = %(currency)s,
    rules_hash = %(rules_hash)s
WHERE
    venue_id = %(venue_id)s
    AND tenant_id = %(tenant_id)s
    AND (as_of, currency, rules_hash)
    IS DISTINCT FROM (%(as_of)s, %(currency)s::text, %(rules_hash)s);
