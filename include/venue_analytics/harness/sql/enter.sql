-- One row a venue whose token is not the newest: the others may be written; their tenant is set,
-- the fences of all are locked.
SELECT e.venue_id
FROM
    jobs.enter(
        %(job)s, %(tenant_id)s, %(venue_ids)s::uuid[], %(tokens)s::bigint[], %(limit_ms)s::bigint
    ) AS e (venue_id);
