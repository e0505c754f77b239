-- No rows: the venue's scores are as of this moment; all that only ages with it reads from here.
UPDATE public.venue_rfm_state
SET
    as_of = %(as_of)s,
    full_as_of = CASE WHEN %(is_full)s THEN %(as_of)s ELSE full_as_of END,
    currency = %(currency)s,
    main_currency = %(main_currency)s,
    rules_hash = %(rules_hash)s
WHERE
    venue_id = %(venue_id)s
    AND tenant_id = %(tenant_id)s
    AND (as_of, full_as_of, currency, main_currency, rules_hash)
    IS DISTINCT FROM (
        %(as_of)s,
        CASE WHEN %(is_full)s THEN %(as_of)s ELSE full_as_of END,
        %(currency)s::text,
        %(main_currency)s::text,
        %(rules_hash)s
    );
