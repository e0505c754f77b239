-- One row: the highest round of any batch of a run's earlier plans; 0 if there is none.
SELECT coalesce(max(b.round), 0)
FROM jobs.batch AS b
INNER JOIN jobs.run AS p ON b.run = p.id
WHERE p.deployment = %(deployment)s AND p.job = %(job)s AND p.run_id = %(run_id)s;
