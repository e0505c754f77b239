-- One row: whether the source says up to when it is complete for one tenant.
SELECT
    count(*) AS rows,
    count(*) - count(DISTINCT f.tenant_id) AS duplicates,
    count(*) FILTER (WHERE f.loaded_through IS NULL) AS "without loaded_through"
FROM source.freshness AS f
WHERE f.tenant_id = %(tenant_id)s;
