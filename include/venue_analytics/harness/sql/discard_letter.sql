-- No rows: gives a letter up: open | replaying -> discarded.
UPDATE jobs.dead_letter SET
    state = 'discarded',
    ended_at = clock_timestamp(),
    reason = %(reason)s,
    ended_by = %(ended_by)s
WHERE id = %(letter)s AND state IN ('open', 'replaying');
