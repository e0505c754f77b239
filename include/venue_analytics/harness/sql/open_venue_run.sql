-- One row: the id of an attempt that begins.
INSERT INTO jobs.venue_run (
    run, plan_number, batch, job, venue_id, tenant_id, venue_name, as_of, rules_hash, host
)
VALUES (
    %(run)s, %(plan_number)s, %(batch)s, %(job)s, %(venue_id)s, %(tenant_id)s, %(venue_name)s,
    %(as_of)s, %(rules_hash)s, %(host)s
)
RETURNING id;
