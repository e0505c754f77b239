-- One row per purchase before as_of, of all venues or of one: its amount net of refunds, directly
-- from the platform's tables. Parameters: as_of; venue_id, null for all.
SELECT
    e.venue_id,
    o.tenant_id,
    o.user_id,
    o.created_at,
    o.total_cents - coalesce(r.cents, 0) AS cents
FROM public.orders AS o
INNER JOIN public.events AS e ON o.event_id = e.id
LEFT JOIN (
    SELECT
        order_id,
        sum(refund_amount_cents)::bigint AS cents
    FROM public.order_refunds
    WHERE refund_status = 'COMPLETED' AND created_at < %(as_of)s
    GROUP BY order_id
) AS r ON o.id = r.order_id
WHERE
    o.status IN ('CONFIRMED', 'COMPLETED', 'PAID', 'REFUND_INITIATED', 'REFUNDED')
    AND o.created_at < %(as_of)s
    AND coalesce(r.cents < o.total_cents, o.status <> 'REFUNDED')
    AND (%(venue_id)s::uuid IS NULL OR e.venue_id = %(venue_id)s::uuid)
