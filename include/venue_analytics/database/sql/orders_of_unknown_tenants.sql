-- One row: the number of orders whose tenant has no venue. If the source has row-level security,
-- it hides them.
SELECT count(*)
FROM source.orders AS o
WHERE o.tenant_id IS NULL OR o.tenant_id <> all(%(tenants)s);
