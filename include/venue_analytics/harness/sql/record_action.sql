-- One row: the action was performed under this claim: claimed | unknown -> done.
UPDATE jobs.action SET state = 'done', ended_at = clock_timestamp()
WHERE
    job = %(job)s
    AND unit_id = %(unit_id)s
    AND key = %(key)s
    AND token = %(token)s
    AND state IN ('claimed', 'unknown')
RETURNING key;
