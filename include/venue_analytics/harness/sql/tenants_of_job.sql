-- One row a tenant that a job has worked for.
SELECT DISTINCT r.tenant_id
FROM jobs.venue_run AS r
WHERE r.job = %(job)s;
