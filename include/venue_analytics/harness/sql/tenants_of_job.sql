-- One row a tenant that a job has worked for: from index entry to index entry, not by all history.
WITH RECURSIVE worked_for AS (
    (
        SELECT r.tenant_id
        FROM jobs.unit_run AS r
        WHERE r.job = %(job)s
        ORDER BY r.tenant_id
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT r.tenant_id
        FROM jobs.unit_run AS r
        WHERE r.job = %(job)s AND r.tenant_id > w.tenant_id
        ORDER BY r.tenant_id
        LIMIT 1
    )
    FROM worked_for AS w
    WHERE w.tenant_id IS NOT NULL
)

SELECT w.tenant_id
FROM worked_for AS w
WHERE w.tenant_id IS NOT NULL;
