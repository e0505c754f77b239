-- No rows: the action was certainly not performed. It may be claimed again, unless a person has
-- discarded its letter.
DELETE FROM jobs.action
WHERE
    job = %(job)s
    AND unit_id = %(unit_id)s
    AND key = %(key)s
    AND token = %(token)s
    AND (
        state = 'claimed'
        OR (
            state = 'unknown' AND EXISTS (
                SELECT FROM jobs.dead_letter AS d
                WHERE
                    d.job = %(job)s
                    AND d.unit_id = %(unit_id)s
                    AND d.kind = 'action'
                    AND d.key = %(key)s
                    AND d.state IN ('open', 'replaying')
            )
        )
    );
