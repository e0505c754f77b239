-- One row: how many orders belong to no tenant that has a venue. Row-level security, where the
-- source has it, hides them.
SELECT count(*)
FROM source.orders AS o
WHERE o.tenant_id IS NULL OR o.tenant_id <> all(%(tenants)s);
