-- One row per customer of a tenant, under the source's own id; the highest spend first.
SELECT
    k.external_id,
    v.name AS venue,
    s.segment,
    s.recency_score,
    s.frequency_score,
    s.monetary_score,
    s.total_purchases,
    s.total_spent,
    r.currency,
    s.days_since_last_purchase
FROM public.customer_rfm_scores AS s
INNER JOIN source.venues AS v ON s.venue_id = v.venue_id
INNER JOIN public.venue_rfm_state AS r ON s.venue_id = r.venue_id AND s.tenant_id = r.tenant_id
INNER JOIN source.customers AS k
    ON
        s.customer_id = k.customer_id
        AND (k.tenant_id = %(tenant_id)s OR k.tenant_id IS NULL)
WHERE s.tenant_id = %(tenant_id)s
ORDER BY s.total_spent DESC, s.total_purchases DESC, k.external_id ASC
LIMIT %(customers)s;
