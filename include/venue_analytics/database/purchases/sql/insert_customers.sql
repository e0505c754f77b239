-- One row written: a new customer of the file.
INSERT INTO csv.customers (customer_id, tenant_id, external_id)
SELECT DISTINCT
    s.customer_id,
    %(tenant_id)s::uuid,
    s.external_id
FROM pg_temp.staged_orders AS s
WHERE NOT EXISTS (
    SELECT FROM csv.customers AS c
    WHERE c.customer_id = s.customer_id
)
