-- One row: a run as one of its plans has it, the last one or not.
SELECT r.*
FROM jobs.plan AS r
WHERE r.id = %(run)s;
