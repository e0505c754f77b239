-- No rows: the venues' scores are as of this moment; all that only ages with it reads from here.
-- From it on, customers are segmented by these rules, where they are new; rules that came in force
-- later, or now and are not new, are overwritten.
WITH given AS (
    SELECT v.*
    FROM unnest(
        %(venue_ids)s::uuid[],
        %(currencies)s::text[],
        %(main_currencies)s::text[],
        %(rules_are_new)s::boolean[]
    ) AS v (venue_id, currency, main_currency, rules_are_new)
),

forgotten AS (
    DELETE FROM public.venue_rfm_rules AS r
    USING given AS g
    WHERE
        r.venue_id = g.venue_id
        AND r.tenant_id = %(tenant_id)s
        AND (r.since > %(as_of)s OR (r.since = %(as_of)s AND NOT g.rules_are_new))
),

noted AS (
    INSERT INTO public.venue_rfm_rules (venue_id, since, tenant_id, rules_hash, currency, rules)
    SELECT
        g.venue_id,
        %(as_of)s,
        %(tenant_id)s,
        %(rules_hash)s,
        g.currency,
        %(rules)s
    FROM given AS g
    WHERE g.rules_are_new
    ON CONFLICT (venue_id, since) DO UPDATE
        SET
            rules_hash = excluded.rules_hash,
            currency = excluded.currency,
            rules = excluded.rules
        WHERE
        (venue_rfm_rules.rules_hash, venue_rfm_rules.currency)
        IS DISTINCT FROM (excluded.rules_hash, excluded.currency)
)

UPDATE public.venue_rfm_state AS v
SET
    as_of = %(as_of)s,
    currency = g.currency,
    main_currency = g.main_currency
FROM given AS g
WHERE
    v.venue_id = g.venue_id
    AND v.tenant_id = %(tenant_id)s
    AND (v.as_of, v.currency, v.main_currency)
    IS DISTINCT FROM (%(as_of)s, g.currency, g.main_currency);
