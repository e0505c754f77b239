-- No rows: notes how a run ended.
UPDATE jobs.run SET outcome = %(outcome)s, finished_at = now() WHERE id = %(run)s;
