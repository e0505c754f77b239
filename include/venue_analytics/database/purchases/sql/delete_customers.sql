-- One row deleted: a customer of whom no file has an order any more.
DELETE FROM csv.customers AS c
WHERE NOT EXISTS (
    SELECT FROM csv.orders AS o
    WHERE o.customer_id = c.customer_id
)
