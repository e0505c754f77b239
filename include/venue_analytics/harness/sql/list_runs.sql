-- One row a run, as last planned, the latest first: how many of its units ended how, in the
-- current round of their batches.
WITH listed AS (
    SELECT r.*
    FROM jobs.plan AS r
    WHERE (r.job = %(job)s OR %(job)s::text IS NULL) AND r.is_current
    ORDER BY r.planned_at DESC, r.id DESC
    LIMIT %(rows)s
),

planned AS (
    SELECT
        b.run,
        sum(jsonb_array_length(b.units)) AS units
    FROM jobs.batch AS b
    INNER JOIN listed AS l ON b.run = l.id
    GROUP BY b.run
),

units AS (
    SELECT DISTINCT ON (a.run, a.unit_id)
        a.run,
        a.outcome
    FROM jobs.unit_run AS a
    INNER JOIN listed AS l ON a.run = l.id
    INNER JOIN jobs.batch AS b ON a.run = b.run AND a.batch = b.number AND a.round = b.round
    ORDER BY a.run ASC, a.unit_id ASC, (a.outcome IN ('succeeded', 'skipped')) DESC, a.id DESC
),

ended AS (
    SELECT
        v.run,
        count(*) FILTER (WHERE v.outcome = 'succeeded') AS succeeded,
        count(*) FILTER (WHERE v.outcome = 'skipped') AS skipped,
        count(*) FILTER (WHERE v.outcome = 'failed') AS failed
    FROM units AS v
    GROUP BY v.run
)

SELECT
    l.job,
    l.run_id,
    l.as_of,
    l.force,
    l.dry_run,
    l.planned_at,
    l.finished_at,
    l.outcome,
    coalesce(p.units, 0) AS planned,
    -- what an earlier round did, or what was forgotten twice after a clear, does not count twice
    least(
        coalesce(e.succeeded, 0) + l.forgotten,
        coalesce(p.units, 0) - coalesce(e.skipped, 0) - coalesce(e.failed, 0)
    ) AS succeeded,
    coalesce(e.skipped, 0) AS skipped,
    coalesce(e.failed, 0) AS failed
FROM listed AS l
LEFT JOIN planned AS p ON l.id = p.run
LEFT JOIN ended AS e ON l.id = e.run
ORDER BY l.planned_at DESC, l.id DESC;
