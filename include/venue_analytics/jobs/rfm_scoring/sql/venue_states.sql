-- One row a venue of this tenant's: what its scores are as of and in, and the rules and currency in
-- force before this as_of; none of a venue whose state is another tenant's.
SELECT
    v.venue_id,
    v.as_of,
    v.currency,
    v.main_currency,
    r.rules_hash AS rules_hash_before,
    r.currency AS currency_before
FROM public.venue_rfm_state AS v
LEFT JOIN LATERAL ( -- noqa: ST05
    SELECT
        r.rules_hash,
        r.currency
    FROM public.venue_rfm_rules AS r
    WHERE r.venue_id = v.venue_id AND r.tenant_id = v.tenant_id AND r.since < %(as_of)s
    ORDER BY r.since DESC
    LIMIT 1
) AS r ON TRUE
WHERE v.venue_id = any(%(venue_ids)s::uuid[]) AND v.tenant_id = %(tenant_id)s;
