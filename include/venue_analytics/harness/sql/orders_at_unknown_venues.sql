-- One row: how many orders of one tenant belong to no venue of that tenant.
SELECT count(*)
FROM source.orders AS o
WHERE
    o.tenant_id = %(tenant_id)s
    AND NOT EXISTS (
        SELECT FROM source.venues AS v
        WHERE v.venue_id = o.venue_id AND v.tenant_id = %(tenant_id)s
    );
