-- One row: what is amiss in the customers that one tenant knows.
SELECT
    count(*) AS rows,
    count(*) - count(DISTINCT c.customer_id, c.tenant_id) AS duplicates,
    count(*) FILTER (WHERE c.deleted) AS deleted,
    count(*) FILTER (WHERE c.erased) AS erased
FROM source.customers AS c
WHERE c.tenant_id = %(tenant_id)s OR c.tenant_id IS NULL;
