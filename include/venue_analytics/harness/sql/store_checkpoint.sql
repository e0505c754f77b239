-- No rows: notes how far venues have come; commits with that step's data.
INSERT INTO jobs.checkpoint (
    job, venue_id, as_of, rules_hash, round, plan_number, step, cursor
)
SELECT
    %(job)s,
    v.venue_id,
    %(as_of)s,
    %(rules_hash)s,
    %(round)s,
    v.plan_number,
    %(step)s,
    %(cursor)s
FROM
    unnest(%(venue_ids)s::uuid[], %(plan_numbers)s::bigint[]) AS v (venue_id, plan_number)
ON CONFLICT (job, venue_id) DO UPDATE
    SET
        as_of = excluded.as_of,
        rules_hash = excluded.rules_hash,
        round = excluded.round,
        plan_number = excluded.plan_number,
        step = excluded.step,
        cursor = excluded.cursor,
        committed_at = excluded.committed_at;
