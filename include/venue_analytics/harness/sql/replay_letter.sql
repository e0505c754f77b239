-- No rows: open -> replaying. One that a killed replay has left so may be replayed again: of two
-- replays at once, the lease lets one wait and then find the unit done.
UPDATE jobs.dead_letter SET state = 'replaying'
WHERE id = %(letter)s AND state IN ('open', 'replaying');
