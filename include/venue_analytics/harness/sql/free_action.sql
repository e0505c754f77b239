-- No rows: a person has the action of a letter performed again, whatever became of it.
DELETE FROM jobs.action
WHERE
    job = %(job)s
    AND unit_id = %(unit_id)s
    AND key = %(key)s
    AND state IN ('refused', 'unknown');
