-- One row: the customers of one tenant and of none, with their defects.
SELECT
    count(*) AS rows,
    count(*) - (
        SELECT count(*)
        FROM (
            SELECT DISTINCT
                c.customer_id,
                c.tenant_id
            FROM source.customers AS c
            WHERE c.tenant_id = %(tenant_id)s OR c.tenant_id IS NULL
        ) AS pair
    ) AS duplicates,
    count(*) FILTER (WHERE k.deleted) AS deleted,
    count(*) FILTER (WHERE k.erased) AS erased
FROM source.customers AS k
WHERE k.tenant_id = %(tenant_id)s OR k.tenant_id IS NULL;
