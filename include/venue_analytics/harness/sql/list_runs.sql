-- One row a run, as last planned, the latest first: how many of its venues ended how, in the
-- present round of their batches.
WITH listed AS (
    SELECT
        r.id,
        r.job,
        r.run_id,
        r.as_of,
        r.force,
        r.dry_run,
        r.planned_at,
        r.finished_at,
        r.outcome
    FROM jobs.run AS r
    WHERE
        (r.job = %(job)s OR %(job)s::text IS NULL)
        AND NOT EXISTS (
            SELECT FROM jobs.run AS later
            WHERE
                later.deployment = r.deployment
                AND later.job = r.job
                AND later.run_id = r.run_id
                AND later.plan_try > r.plan_try
        )
    ORDER BY r.planned_at DESC, r.id DESC
    LIMIT %(rows)s
),

planned AS (
    SELECT
        b.run,
        sum(jsonb_array_length(b.venues)) AS venues
    FROM jobs.batch AS b
    INNER JOIN listed AS l ON b.run = l.id
    GROUP BY b.run
),

venues AS (
    SELECT DISTINCT ON (a.run, a.venue_id)
        a.run,
        a.outcome
    FROM jobs.venue_run AS a
    INNER JOIN listed AS l ON a.run = l.id
    INNER JOIN jobs.batch AS b ON a.run = b.run AND a.batch = b.number AND a.round = b.round
    ORDER BY a.run ASC, a.venue_id ASC, (a.outcome IN ('succeeded', 'skipped')) DESC, a.id DESC
),

ended AS (
    SELECT
        v.run,
        count(*) FILTER (WHERE v.outcome = 'succeeded') AS succeeded,
        count(*) FILTER (WHERE v.outcome = 'skipped') AS skipped,
        count(*) FILTER (WHERE v.outcome = 'failed') AS failed
    FROM venues AS v
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
    coalesce(p.venues, 0) AS planned,
    coalesce(e.succeeded, 0) AS succeeded,
    coalesce(e.skipped, 0) AS skipped,
    coalesce(e.failed, 0) AS failed
FROM listed AS l
LEFT JOIN planned AS p ON l.id = p.run
LEFT JOIN ended AS e ON l.id = e.run
ORDER BY l.planned_at DESC, l.id DESC;
