-- No rows: from this as_of on, a venue's customers are segmented by these rules.
INSERT INTO public.venue_rfm_rules (venue_id, since, tenant_id, rules_hash, currency, rules)
VALUES (%(venue_id)s, %(as_of)s, %(tenant_id)s, %(rules_hash)s, %(currency)s, %(rules)s)
ON CONFLICT (venue_id, since) DO UPDATE SET
    rules_hash = excluded.rules_hash,
    currency = excluded.currency,
    rules = excluded.rules
WHERE
(venue_rfm_rules.rules_hash, venue_rfm_rules.currency)
IS DISTINCT FROM (excluded.rules_hash, excluded.currency);
