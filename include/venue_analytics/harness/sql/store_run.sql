-- One row: the run's id, as it now stands planned. A later plan of the same run replaces it.
INSERT INTO jobs.run (
    deployment, job, run_id, plan_number, as_of, force, settings, source_faults
)
VALUES (
    %(deployment)s, %(job)s, %(run_id)s, nextval('jobs.plan_number'), %(as_of)s, %(force)s,
    %(settings)s, %(source_faults)s
)
ON CONFLICT ON CONSTRAINT run_once DO UPDATE
    SET
        plan_number = excluded.plan_number,
        as_of = excluded.as_of,
        force = excluded.force,
        settings = excluded.settings,
        source_faults = excluded.source_faults,
        planned_at = now(),
        finished_at = NULL,
        outcome = 'planned'
RETURNING id, plan_number;
