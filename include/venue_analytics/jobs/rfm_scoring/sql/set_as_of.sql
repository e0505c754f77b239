-- No rows: the venue's scores are as of this moment; all that only ages with it reads from here.
UPDATE public.venue_rfm_state
SET
    as_of = %(as_of)s,
    currency = %(currency)s,
    main_currency = %(main_currency)s
WHERE
    venue_id = %(venue_id)s
    AND tenant_id = %(tenant_id)s
    AND (as_of, currency, main_currency)
    IS DISTINCT FROM (%(as_of)s, %(currency)s::text, %(main_currency)s::text);
