-- No rows: replaying -> open, where the replay has not resolved it.
UPDATE jobs.dead_letter SET state = 'open' WHERE id = %(letter)s AND state = 'replaying';
