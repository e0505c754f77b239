-- No rows: notes how a run ended: planned -> succeeded | failed; after a clear, again.
UPDATE jobs.run SET outcome = %(outcome)s, finished_at = now() WHERE id = %(run)s;
