-- One row a key of these under which an action was claimed, refused or performed before.
SELECT a.key
FROM jobs.action AS a
WHERE a.job = %(job)s AND a.unit_id = %(unit_id)s AND a.key = any(%(keys)s::text[]);
