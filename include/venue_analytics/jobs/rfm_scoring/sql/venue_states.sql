-- One row a venue that has state under its tenant: what its scores are as of, and rest on.
SELECT
    v.venue_id,
    v.as_of,
    v.full_as_of,
    v.currency,
    v.main_currency,
    v.rules_hash,
    r.rules_hash AS rules_before,
    r.currency AS currency_before,
    (SELECT a.keeps_updated_at FROM source.adapter AS a) AS source_keeps_updated_at
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
WHERE v.venue_id = any(%(venue_ids)s) AND v.tenant_id = %(tenant_id)s;
