-- No rows: notes how far a venue has come; commits with that step's data.
INSERT INTO jobs.checkpoint (
    job, venue_id, as_of, rules_hash, round, plan_number, step, cursor
)
VALUES (
    %(job)s, %(venue_id)s, %(as_of)s, %(rules_hash)s, %(round)s, %(plan_number)s, %(step)s,
    %(cursor)s
)
ON CONFLICT (job, venue_id) DO UPDATE
    SET
        as_of = excluded.as_of,
        rules_hash = excluded.rules_hash,
        round = excluded.round,
        plan_number = excluded.plan_number,
        step = excluded.step,
        cursor = excluded.cursor,
        committed_at = excluded.committed_at;
