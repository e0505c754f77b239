-- One row deleted: a customer without orders in any data set.
DELETE FROM csv.customers AS c
WHERE NOT EXISTS (
    SELECT FROM csv.orders AS o
    WHERE o.customer_id = c.customer_id
)
