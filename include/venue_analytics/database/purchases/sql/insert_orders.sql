-- One row written: a new order of the file.
INSERT INTO csv.orders (
    order_id, tenant_id, venue_id, customer_id, ordered_at, amount, status, currency, tickets,
    dataset, file_line
)
SELECT
    s.order_id,
    %(tenant_id)s::uuid,
    s.venue_id,
    s.customer_id,
    s.ordered_at,
    s.amount,
    s.status,
    s.currency,
    s.tickets,
    %(dataset)s::text,
    s.file_line
FROM pg_temp.staged_orders AS s
WHERE NOT EXISTS (
    SELECT FROM csv.orders AS o
    WHERE o.order_id = s.order_id
)
