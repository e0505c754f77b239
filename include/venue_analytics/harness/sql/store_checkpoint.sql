-- No rows: stores how far units have come; commits with that step's data.
INSERT INTO jobs.checkpoint (
    job, unit_id, tenant_id, as_of, rules_hash, round, for_plan, done, step, cursor
)
SELECT
    %(job)s,
    u.unit_id,
    %(tenant_id)s,
    %(as_of)s,
    %(rules_hash)s,
    %(round)s,
    u.for_plan,
    %(done)s::text[],
    %(step)s,
    %(cursor)s
FROM
    unnest(%(unit_ids)s::uuid[], %(plans)s::bigint[]) AS u (unit_id, for_plan)
ON CONFLICT (job, unit_id) DO UPDATE
    SET
        tenant_id = excluded.tenant_id,
        as_of = excluded.as_of,
        rules_hash = excluded.rules_hash,
        round = excluded.round,
        for_plan = excluded.for_plan,
        done = excluded.done,
        step = excluded.step,
        cursor = excluded.cursor,
        committed_at = excluded.committed_at;
