-- One row deleted: an order of this data set whose row is no longer in the file, or now invalid.
DELETE FROM csv.orders AS o
WHERE
    o.dataset = %(dataset)s
    AND NOT EXISTS (
        SELECT FROM pg_temp.staged_orders AS s
        WHERE s.order_id = o.order_id
    )
