-- One row: the orders of one tenant, with their defects.
WITH known AS (
    SELECT DISTINCT c.customer_id
    FROM source.customers AS c
    WHERE c.tenant_id = %(tenant_id)s OR c.tenant_id IS NULL
)

SELECT
    count(*) AS rows,
    count(*) - count(DISTINCT o.order_id) AS duplicates,
    count(*) FILTER (
        WHERE o.status IS NULL OR o.status NOT IN ('paid', 'pending', 'cancelled', 'refunded')
    ) AS "of unknown status",
    count(*) FILTER (WHERE v.venue_id IS NULL) AS "at venues that its tenant does not have",
    count(*) FILTER (WHERE o.customer_id IS NOT NULL AND k.customer_id IS NULL)
        AS "by unknown customers",
    count(*) FILTER (
        WHERE
        o.event_id IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM source.events AS e
            WHERE e.event_id = o.event_id AND e.tenant_id = %(tenant_id)s
        )
    ) AS "for unknown events",
    count(*) FILTER (WHERE o.ordered_at IS NULL) AS "without a time",
    count(*) FILTER (WHERE o.ordered_at > now()) AS "in the future",
    count(*) FILTER (
        WHERE
        o.status IN ('paid', 'pending', 'cancelled', 'refunded')
        AND o.is_sale IS DISTINCT FROM (o.status IN ('paid', 'refunded'))
    ) AS "whose is_sale contradicts their status",
    count(*) FILTER (WHERE o.amount_cents IS NULL) AS "without an amount",
    count(*) FILTER (WHERE o.amount_cents < 0) AS "of a negative amount",
    count(*) FILTER (WHERE o.amount_cents >= 1000000000000) AS "of too large an amount",
    count(*) FILTER (WHERE o.is_rounded) AS "of a fraction of a cent, taken as whole cents",
    count(*) FILTER (WHERE o.currency IS NULL) AS "without a currency",
    count(*) FILTER (WHERE o.customer_id IS NULL) AS "by guests",
    count(o.updated_at) AS "with updated_at"
FROM source.orders AS o
LEFT JOIN source.venues AS v ON o.venue_id = v.venue_id AND v.tenant_id = %(tenant_id)s
LEFT JOIN known AS k ON o.customer_id = k.customer_id
WHERE o.tenant_id = %(tenant_id)s;
