-- One row: whether it is said up to when the source of one tenant is complete.
SELECT
    count(*) AS rows,
    count(*) - count(DISTINCT f.tenant_id) AS duplicates,
    count(*) FILTER (WHERE f.loaded_through IS NULL) AS "without loaded_through"
FROM source.freshness AS f
WHERE f.tenant_id = %(tenant_id)s;
