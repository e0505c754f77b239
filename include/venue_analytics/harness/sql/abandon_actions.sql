-- One row a claim that nobody will end: claimed -> unknown. Its attempt has ended, or a later one
-- has drawn a token. Of one unit, or of all; locked in the order of the units' ids, so that two
-- finishes never wait for each other.
WITH abandoned AS MATERIALIZED (
    SELECT
        a.job,
        a.unit_id,
        a.key,
        r.tenant_id,
        r.unit_name
    FROM jobs.action AS a
    INNER JOIN jobs.unit_run AS r
        ON a.job = r.job AND a.unit_id = r.unit_id AND a.token = r.token
    INNER JOIN jobs.fence AS f ON a.job = f.job AND a.unit_id = f.unit_id
    WHERE
        a.job = %(job)s
        AND (a.unit_id = %(unit_id)s OR %(unit_id)s::uuid IS NULL)
        AND a.state = 'claimed'
        AND (a.token < f.token OR r.outcome <> 'running')
    ORDER BY a.unit_id, a.key
    FOR UPDATE OF a
)

UPDATE jobs.action AS a SET state = 'unknown', ended_at = clock_timestamp()
FROM abandoned AS b
WHERE a.job = b.job AND a.unit_id = b.unit_id AND a.key = b.key
RETURNING a.key, a.run, b.unit_id, b.tenant_id, b.unit_name;
