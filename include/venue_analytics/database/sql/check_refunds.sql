-- One row: the refunds of one tenant, with their defects.
SELECT
    count(*) AS rows,
    count(*) - count(DISTINCT r.refund_id) AS duplicates,
    count(*) FILTER (
        WHERE NOT EXISTS (
            SELECT FROM source.orders AS o
            WHERE o.order_id = r.order_id AND o.tenant_id = %(tenant_id)s
        )
    ) AS "of unknown orders",
    count(*) FILTER (WHERE r.amount_cents IS NULL OR r.amount_cents < 0)
        AS "without a positive amount",
    count(*) FILTER (WHERE r.refunded_at IS NULL) AS "without a time"
FROM source.refunds AS r
WHERE r.tenant_id = %(tenant_id)s;
