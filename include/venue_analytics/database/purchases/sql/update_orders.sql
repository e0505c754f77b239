-- One row written: an order whose row in the file changed since the last load.
UPDATE csv.orders AS o
SET
    venue_id = s.venue_id,
    customer_id = s.customer_id,
    ordered_at = s.ordered_at,
    amount = s.amount,
    status = s.status,
    currency = s.currency,
    tickets = s.tickets
FROM pg_temp.staged_orders AS s
WHERE
    o.order_id = s.order_id
    AND (o.venue_id, o.customer_id, o.ordered_at, o.amount, o.status, o.currency, o.tickets)
    IS DISTINCT FROM
    (s.venue_id, s.customer_id, s.ordered_at, s.amount, s.status, s.currency, s.tickets)
