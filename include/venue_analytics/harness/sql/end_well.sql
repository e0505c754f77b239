-- One row an attempt that was still running and has ended well now; with its data, in one
-- transaction. A success forgets the checkpoint; a good end answers the dead letters, but for a dry
-- run, which has done nothing.
WITH given AS (
    SELECT g.*
    FROM
        jsonb_to_recordset(%(ends)s) AS g (
            id bigint,
            unit_id uuid,
            outcome text,
            reason text,
            started_at timestamptz,
            share double precision,
            seconds_before double precision,
            rows_read bigint,
            rows_written bigint,
            rows_unchanged bigint,
            rows_removed bigint,
            left_out jsonb,
            summary jsonb,
            items_before timestamptz
        )
),

ended AS (
    UPDATE jobs.unit_run AS r SET
        outcome = g.outcome,
        reason = g.reason,
        started_at = g.started_at,
        finished_at = clock_timestamp(),
        seconds = g.seconds_before + g.share * extract(EPOCH FROM clock_timestamp() - now()),
        rows_read = g.rows_read,
        rows_written = g.rows_written,
        rows_unchanged = g.rows_unchanged,
        rows_removed = g.rows_removed,
        left_out = g.left_out,
        summary = g.summary
    FROM given AS g
    WHERE r.id = g.id AND r.outcome = 'running'
    RETURNING r.id
),

forgotten AS (
    DELETE FROM jobs.checkpoint AS c
    USING given AS g
    WHERE c.job = %(job)s AND c.unit_id = g.unit_id AND g.outcome = 'succeeded'
),

-- locked in the order of the units' ids, as finish writes them
to_answer AS MATERIALIZED (
    SELECT d.id
    FROM jobs.dead_letter AS d
    INNER JOIN given AS g ON d.unit_id = g.unit_id
    WHERE
        d.job = %(job)s
        AND d.state IN ('open', 'replaying')
        AND d.as_of <= %(as_of)s
        AND NOT %(dry_run)s
        AND (
            (d.kind = 'unit' AND d.key = %(key)s)
            OR (d.kind = 'item' AND d.last_failed_at < g.items_before)
        )
    ORDER BY d.unit_id, d.id
    FOR UPDATE OF d
),

answered AS (
    UPDATE jobs.dead_letter AS d SET state = 'resolved', ended_at = clock_timestamp()
    FROM to_answer AS a
    WHERE d.id = a.id
)

SELECT e.id FROM ended AS e;
