-- One row a unit whose token is not the newest: the others may be written; their tenant is set,
-- the fences of all are locked.
SELECT e.unit_id
FROM
    jobs.enter(
        %(job)s, %(tenant_id)s, %(unit_ids)s::uuid[], %(tokens)s::bigint[], %(limit_ms)s::bigint
    ) AS e (unit_id);
