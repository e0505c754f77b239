-- At most one row: locks the action of a letter before the letter, as whoever records it does.
SELECT a.key
FROM jobs.action AS a
WHERE a.job = %(job)s AND a.unit_id = %(unit_id)s AND a.key = %(key)s
FOR UPDATE;
