-- No rows: the action was certainly not performed; it may be claimed again.
DELETE FROM jobs.action
WHERE
    job = %(job)s
    AND unit_id = %(unit_id)s
    AND key = %(key)s
    AND token = %(token)s
    AND state IN ('claimed', 'unknown');
