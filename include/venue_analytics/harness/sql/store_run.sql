-- One row: the id and number of a plan; none if this try's is stored already.
INSERT INTO jobs.run (
    deployment, job, run_id, plan_try, plan_number, as_of, force, dry_run,
    settings, source_faults, left_behind
)
VALUES (
    %(deployment)s, %(job)s, %(run_id)s, %(plan_try)s, nextval('jobs.plan_number'), %(as_of)s,
    %(force)s, %(dry_run)s, %(settings)s, %(source_faults)s, %(left_behind)s
)
ON CONFLICT ON CONSTRAINT plan_once DO NOTHING
RETURNING id, plan_number;
