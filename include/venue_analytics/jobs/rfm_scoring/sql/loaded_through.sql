-- One row: the moment up to which the source is complete for a tenant.
SELECT f.loaded_through
FROM source.freshness AS f
WHERE f.tenant_id = %(tenant_id)s;
