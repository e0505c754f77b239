-- One row: the number of a letter that is open now, new or renewed; none for a unit that another
-- run has done since it last failed in this one. For a unit, all failed attempts of the run that
-- are not counted yet are counted; anything else counts one. The letter is of the newest night that
-- failed.
INSERT INTO jobs.dead_letter AS d (
    job, unit_id, tenant_id, unit_name, kind, key, as_of, run, error_type, error, traceback,
    attempts, first_failed_at, last_failed_at
)
SELECT
    %(job)s,
    %(unit_id)s,
    %(tenant_id)s,
    %(unit_name)s,
    %(kind)s,
    %(key)s,
    %(as_of)s,
    %(run)s,
    %(error_type)s,
    %(error)s,
    %(traceback)s,
    CASE %(kind)s WHEN 'unit' THEN count(r.id) ELSE 1 END,
    coalesce(min(r.finished_at), clock_timestamp()),
    coalesce(max(r.finished_at), clock_timestamp())
FROM (VALUES (1)) AS one (row)
LEFT JOIN jobs.unit_run AS r
    ON
        r.run = %(run)s
        AND r.unit_id = %(unit_id)s
        AND r.outcome = 'failed'
        AND %(kind)s = 'unit'
HAVING
    %(kind)s <> 'unit'
    OR NOT EXISTS (
        SELECT FROM jobs.unit_run AS s
        INNER JOIN jobs.run AS p ON p.id = %(run)s AND s.finished_at > p.planned_at
        WHERE
            s.job = %(job)s
            AND s.unit_id = %(unit_id)s
            AND s.outcome = 'succeeded'
            AND s.run <> %(run)s
            AND s.finished_at > coalesce(max(r.finished_at), '-infinity')
            AND (s.as_of = %(as_of)s OR (s.as_of > %(as_of)s AND %(key)s = ''))
    )
ON CONFLICT (job, unit_id, kind, key) WHERE state IN ('open', 'replaying') DO UPDATE
    SET
        tenant_id = excluded.tenant_id,
        unit_name = excluded.unit_name,
        as_of = greatest(d.as_of, excluded.as_of),
        run = CASE WHEN excluded.as_of >= d.as_of THEN excluded.run ELSE d.run END,
        error_type = CASE
            WHEN excluded.as_of >= d.as_of THEN excluded.error_type ELSE d.error_type
        END,
        error = CASE WHEN excluded.as_of >= d.as_of THEN excluded.error ELSE d.error END,
        traceback = CASE
            WHEN excluded.as_of >= d.as_of THEN excluded.traceback ELSE d.traceback
        END,
        attempts = CASE
            WHEN d.kind = 'unit' AND d.run = excluded.run THEN excluded.attempts
            ELSE d.attempts + excluded.attempts
        END,
        first_failed_at = least(d.first_failed_at, excluded.first_failed_at),
        last_failed_at = greatest(d.last_failed_at, excluded.last_failed_at),
        state = 'open'
RETURNING d.id;
