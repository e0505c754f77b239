-- No rows: open | replaying -> resolved: the letter of an action that is done after all. Somebody
-- took its process for dead. This is a statement of its own because recording may have waited for
-- the transaction that wrote the letter, which a snapshot from before would not see.
UPDATE jobs.dead_letter SET state = 'resolved', ended_at = clock_timestamp()
WHERE
    job = %(job)s
    AND unit_id = %(unit_id)s
    AND kind = 'action'
    AND key = %(key)s
    AND state IN ('open', 'replaying');
