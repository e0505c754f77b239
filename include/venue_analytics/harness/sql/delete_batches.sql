-- No rows: forgets the batches of a run's earlier plan.
DELETE FROM jobs.batch WHERE run = %(run)s;
