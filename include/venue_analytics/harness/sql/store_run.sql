-- One row: the id of a plan; none if this try's is stored already.
INSERT INTO jobs.run (
    deployment, job, run_id, plan_try, as_of, force, dry_run,
    settings, parameters, source_faults, left_behind
)
VALUES (
    %(deployment)s, %(job)s, %(run_id)s, %(plan_try)s, %(as_of)s, %(force)s, %(dry_run)s,
    %(settings)s, %(parameters)s, %(source_faults)s, %(left_behind)s
)
ON CONFLICT ON CONSTRAINT plan_once DO NOTHING
RETURNING id;
