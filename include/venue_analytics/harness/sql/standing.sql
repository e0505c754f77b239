-- One row a unit: what stands of it under its locked fence: the latest success by token (for a
-- job that keeps every date, the latest for this as_of), the latest plan that made that very result
-- or found it done, the checkpoint of unfinished work, and whether the run has been planned anew.
SELECT
    v.unit_id,
    clock_timestamp() AS asked_at,
    latest.as_of AS done_as_of,
    latest.rules_hash AS done_rules_hash,
    latest.run AS done_by_run,
    latest.batch AS done_by_batch,
    latest.round AS done_in_round,
    latest.tenant_id AS done_for_tenant,
    latest.unit_gone AS done_when_gone,
    (
        SELECT max(w.for_plan) FROM jobs.unit_run AS w
        WHERE
            w.job = %(job)s
            AND w.unit_id = v.unit_id
            AND w.as_of = latest.as_of
            AND w.rules_hash = latest.rules_hash
            AND w.outcome IN ('succeeded', 'skipped')
            AND NOT w.dry_run
    ) AS done_for_plan,
    c.as_of AS begun_as_of,
    c.rules_hash AS begun_rules_hash,
    c.round AS begun_round,
    c.for_plan AS begun_for_plan,
    c.done AS begun_done,
    c.step AS begun_step,
    c.cursor AS begun_cursor,
    c.tenant_id AS begun_for_tenant,
    NOT EXISTS (
        SELECT FROM jobs.plan AS p WHERE p.id = %(run)s AND p.is_current
    ) AS planned_anew
FROM unnest(%(unit_ids)s::uuid[]) AS v (unit_id)
LEFT JOIN LATERAL ( -- noqa: ST05
    SELECT
        r.as_of,
        r.rules_hash,
        r.run,
        r.batch,
        r.round,
        r.tenant_id,
        r.unit_gone
    FROM jobs.unit_run AS r
    WHERE
        r.job = %(job)s
        AND r.unit_id = v.unit_id
        AND r.token IS NOT NULL
        AND r.outcome = 'succeeded'
        AND (NOT %(keeps_every_date)s OR r.as_of = %(as_of)s)
    ORDER BY r.token DESC
    LIMIT 1
) AS latest ON TRUE
LEFT JOIN jobs.checkpoint AS c ON v.unit_id = c.unit_id AND c.job = %(job)s;
