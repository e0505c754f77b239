-- Schema `source` has the views of the contract. Schema `jobs` has the state of the harness:
-- history, tokens, checkpoints, actions, dead letters. A unit is a venue or a tenant.

CREATE TABLE source.adapter (
    only_row boolean PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    name text NOT NULL,
    -- ISO 4217; for adapters whose tables have no currency
    currency text,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE source.adapter IS 'Which adapter defines the views of this schema.';

-- Converts an amount to cents, for adapters; a fraction of a cent is rounded. NaN, infinities and
-- amounts out of range become 9e18 or -9e18, which jobs leave out as too large or negative.
CREATE FUNCTION source.cents(amount numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN abs(amount) < 90000000000000000 THEN (amount * 100)::bigint
    WHEN amount < 0 THEN -9000000000000000000
    WHEN amount > 0 THEN 9000000000000000000
END;

-- history ---------------------------------------------------------------------------------------

CREATE TABLE jobs.run (
    -- a later plan has a higher id
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deployment uuid NOT NULL,
    job text NOT NULL,
    run_id text NOT NULL,
    plan_try integer NOT NULL CHECK (plan_try > 0),
    as_of timestamptz NOT NULL,
    force boolean NOT NULL,
    -- the run only reports what would change
    dry_run boolean NOT NULL,
    settings jsonb NOT NULL,
    -- the run's values of the parameters that only this job has
    parameters jsonb NOT NULL,
    -- defects that the plan found in the source: units without tenant, orders at unknown units
    source_faults jsonb NOT NULL,
    -- messages: work left over from earlier runs of the job that never reached their finish
    left_behind jsonb NOT NULL,
    planned_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    -- planned -> succeeded | failed
    outcome text NOT NULL DEFAULT 'planned' CHECK (outcome IN ('planned', 'succeeded', 'failed')),
    -- successes of this run that history no longer has
    forgotten integer NOT NULL DEFAULT 0,
    CONSTRAINT plan_once UNIQUE (deployment, job, run_id, plan_try)
);
CREATE INDEX run_planned ON jobs.run (job, planned_at);
CREATE INDEX run_latest ON jobs.run (planned_at, id);
CREATE INDEX run_unfinished ON jobs.run (job) WHERE outcome = 'planned';
COMMENT ON TABLE jobs.run IS
'One row per plan of a run; the one with the highest plan_try is in force.';

CREATE VIEW jobs.plan WITH (security_invoker) AS
SELECT
    r.id,
    r.deployment,
    r.job,
    r.run_id,
    r.as_of,
    r.force,
    r.dry_run,
    r.settings,
    r.parameters,
    r.source_faults,
    r.left_behind,
    r.planned_at,
    r.finished_at,
    r.outcome,
    r.forgotten,
    NOT EXISTS (
        SELECT FROM jobs.run AS later
        WHERE
            later.deployment = r.deployment
            AND later.job = r.job
            AND later.run_id = r.run_id
            AND later.plan_try > r.plan_try
    ) AS is_current
FROM jobs.run AS r;
COMMENT ON VIEW jobs.plan IS 'One row per plan of a run, and whether it is the one in force.';

CREATE TABLE jobs.batch (
    run bigint NOT NULL REFERENCES jobs.run (id),
    number integer NOT NULL,
    label text NOT NULL,
    units jsonb NOT NULL,
    -- 0 until a try begins; units that ended well in an earlier round are done again
    round integer NOT NULL DEFAULT 0,
    -- true after a plan: the first try then opens the next round
    newly_planned boolean NOT NULL DEFAULT TRUE,
    -- the run's clear number when the round ended well; a try with a higher one opens a new round
    ended_well_at_clear integer,
    PRIMARY KEY (run, number)
);
COMMENT ON TABLE jobs.batch IS 'The units of one mapped task.';

CREATE TABLE jobs.unit_run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL REFERENCES jobs.run (id),
    -- the latest plan whose work it did; may differ from `run` if the attempt resumed
    for_plan bigint NOT NULL,
    batch integer NOT NULL,
    round integer NOT NULL,
    try_number integer NOT NULL,
    -- the run's clear number when the try began
    clear_number integer NOT NULL,
    job text NOT NULL,
    unit_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    unit_name text NOT NULL,
    -- the unit no longer exists in the source: the attempt removes its rows
    unit_gone boolean NOT NULL DEFAULT FALSE,
    as_of timestamptz NOT NULL,
    rules_hash text NOT NULL,
    dry_run boolean NOT NULL DEFAULT FALSE,
    -- fencing token; null if the attempt failed before it had one
    token bigint,
    -- running -> succeeded | skipped | failed
    outcome text NOT NULL DEFAULT 'running'
    CHECK (outcome IN ('running', 'succeeded', 'skipped', 'failed')),
    reason text,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    host text NOT NULL,
    -- the attempt was opened for this unit alone; if its process dies, the unit is retried last
    alone boolean NOT NULL,
    -- the failure would affect any unit (Redis, the connection): this unit is not the cause
    is_common boolean NOT NULL DEFAULT FALSE,
    -- units that share a transaction divide its time in proportion to the rows that they read
    seconds double precision,
    rows_read bigint,
    rows_written bigint,
    rows_unchanged bigint,
    rows_removed bigint,
    -- number of orders that were not counted, by kind
    left_out jsonb,
    -- the job's own figures, for its report; no personal data
    summary jsonb,
    -- a retry would fail again: none is made until the task is cleared
    permanent boolean NOT NULL DEFAULT FALSE,
    error_type text,
    error text,
    traceback text
);
CREATE INDEX unit_run_of_run ON jobs.unit_run (run, unit_id);
CREATE INDEX unit_run_of_tenant ON jobs.unit_run (job, tenant_id);
CREATE UNIQUE INDEX unit_run_token ON jobs.unit_run (job, unit_id, token);
CREATE INDEX unit_run_ended_well ON jobs.unit_run (job, unit_id, as_of, for_plan)
WHERE outcome IN ('succeeded', 'skipped');
CREATE INDEX unit_run_running ON jobs.unit_run (job) WHERE outcome = 'running';
COMMENT ON TABLE jobs.unit_run IS 'One row per attempt at a unit; append-only.';

-- tokens and checkpoints ------------------------------------------------------------------------

CREATE TABLE jobs.fence (
    job text NOT NULL,
    unit_id uuid NOT NULL,
    token bigint NOT NULL CHECK (token > 0),
    PRIMARY KEY (job, unit_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE jobs.fence IS
'One row per unit of a job: the newest fencing token. Never deleted, so that no token is reused.';

-- Begins a transaction on units of one tenant: sets the tenant and locks their fence rows. Of two
-- processes the one with the older token is rejected here, whatever the state of their leases.
CREATE FUNCTION jobs.enter(
    job_name text, tenant uuid, units uuid[], own_tokens bigint[], limit_ms bigint
) RETURNS SETOF uuid
LANGUAGE plpgsql
AS $$
BEGIN
    IF tenant IS NULL THEN
        -- otherwise a policy could show no rows, and the job would delete every customer
        RAISE EXCEPTION 'units % have no tenant: a transaction needs exactly one', units
        USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM set_config('app.current_tenant_id', tenant::text, TRUE);
    IF limit_ms IS NOT NULL THEN
        PERFORM set_config('statement_timeout', limit_ms::text, TRUE);
    END IF;
    RETURN QUERY
    SELECT v.unit_id
    FROM unnest(units, own_tokens) AS v (unit_id, token)
    LEFT JOIN (
        SELECT f.unit_id, f.token FROM jobs.fence AS f
        WHERE f.job = job_name AND f.unit_id = ANY(units)
        ORDER BY f.unit_id
        FOR UPDATE
    ) AS newest ON v.unit_id = newest.unit_id
    WHERE newest.token IS DISTINCT FROM v.token;
END $$;
COMMENT ON FUNCTION jobs.enter(text, uuid, uuid[], bigint[], bigint) IS
'Begins a transaction on units; returns the units whose token is not the newest.';

CREATE TABLE jobs.checkpoint (
    job text NOT NULL,
    unit_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    as_of timestamptz NOT NULL,
    rules_hash text NOT NULL,
    round integer NOT NULL,
    -- the latest plan whose work it includes
    for_plan bigint NOT NULL,
    -- names of the committed steps
    done text[] NOT NULL,
    -- the step that has committed a part, and where it resumes
    step text,
    cursor jsonb,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (job, unit_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE jobs.checkpoint IS
'One row per unit with unfinished steps; committed together with the data.';

-- actions: side effects outside the database ---------------------------------------------------

CREATE TABLE jobs.action (
    job text NOT NULL,
    unit_id uuid NOT NULL,
    -- unique among all actions of the unit, for ever
    key text NOT NULL,
    -- claimed -> done, or deleted if it certainly was not performed; claimed -> refused | unknown;
    -- unknown -> done; a replay deletes refused and unknown ones
    state text NOT NULL DEFAULT 'claimed'
    CHECK (state IN ('claimed', 'done', 'refused', 'unknown')),
    run bigint NOT NULL REFERENCES jobs.run (id),
    -- the token of the attempt that claimed it
    token bigint NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    PRIMARY KEY (job, unit_id, key)
);
CREATE INDEX action_claimed ON jobs.action (job, unit_id) WHERE state = 'claimed';
COMMENT ON TABLE jobs.action IS
'One row per action outside the database, claimed before it is performed.';

-- dead letters ----------------------------------------------------------------------------------

CREATE TABLE jobs.dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job text NOT NULL,
    -- null only for a message
    unit_id uuid,
    tenant_id uuid,
    unit_name text,
    -- a whole unit; an item (a row) or an action inside it; a message that belongs to no unit
    kind text NOT NULL CHECK (kind IN ('unit', 'item', 'action', 'message')),
    -- the key of the item, action or message; for a unit '', or its as_of if the job keeps each
    -- date
    key text NOT NULL,
    as_of timestamptz NOT NULL,
    run bigint NOT NULL REFERENCES jobs.run (id),
    error_type text NOT NULL,
    error text NOT NULL,
    traceback text,
    attempts integer NOT NULL CHECK (attempts >= 0),
    first_failed_at timestamptz NOT NULL,
    last_failed_at timestamptz NOT NULL,
    -- open -> replaying -> resolved, or open again; open -> discarded
    state text NOT NULL DEFAULT 'open'
    CHECK (state IN ('open', 'replaying', 'resolved', 'discarded')),
    ended_at timestamptz,
    reason text,
    ended_by text,
    CONSTRAINT only_messages_have_no_unit CHECK ((kind = 'message') = (unit_id IS NULL)),
    CONSTRAINT discarded_with_reason_and_name CHECK (
        state <> 'discarded' OR (reason IS NOT NULL AND ended_by IS NOT NULL)
    )
);
COMMENT ON TABLE jobs.dead_letter IS
'One row per unit whose tries are exhausted, and per item, action or message that failed.';
CREATE UNIQUE INDEX one_open_letter ON jobs.dead_letter (job, unit_id, kind, key)
NULLS NOT DISTINCT WHERE state IN ('open', 'replaying');

CREATE TABLE jobs.dead_letter_payload (
    letter bigint NOT NULL REFERENCES jobs.dead_letter (id),
    tenant_id uuid NOT NULL,
    payload jsonb NOT NULL,
    PRIMARY KEY (letter, tenant_id)
);
COMMENT ON TABLE jobs.dead_letter_payload IS
'What could not be processed. May contain personal data; readable only under its tenant.';

-- the venues of every tenant --------------------------------------------------------------------

-- source.venues does not exist yet: the adapter creates it after this migration.
SET LOCAL check_function_bodies = off;

CREATE FUNCTION jobs.list_venues()
RETURNS TABLE (
    venue_id uuid, tenant_id uuid, name text, timezone text, currency text, open boolean
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'SELECT v.venue_id, v.tenant_id, v.name, v.timezone, v.currency, v.open FROM source.venues AS v';
COMMENT ON FUNCTION jobs.list_venues() IS
'The venues of every tenant: all that a job may read across tenants.';

-- forgetting ------------------------------------------------------------------------------------

-- Deletes successes of earlier runs that a later success has replaced, so that history of a job
-- that runs every few minutes keeps one success per unit and one row per run. Kept are failures,
-- the success after a failure in the same run, successes with a reason, and rows that prove for
-- which plan the latest result was made.
CREATE FUNCTION jobs.forget_successes(job_name text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
WITH latest AS (
    SELECT DISTINCT ON (r.unit_id)
        r.unit_id,
        r.token,
        r.as_of,
        r.rules_hash
    FROM jobs.unit_run AS r
    WHERE r.job = job_name AND r.outcome = 'succeeded' AND r.token IS NOT NULL
    ORDER BY r.unit_id ASC, r.token DESC
),

forgotten AS (
    DELETE FROM jobs.unit_run AS r
    USING latest AS l
    WHERE
        r.job = job_name
        AND r.unit_id = l.unit_id
        AND r.token < l.token
        AND r.outcome = 'succeeded'
        AND r.reason IS NULL
        AND (r.as_of, r.rules_hash) <> (l.as_of, l.rules_hash)
        -- a run that is still going on needs its proofs
        AND EXISTS (
            SELECT FROM jobs.run AS p WHERE p.id = r.run AND p.outcome <> 'planned'
        )
        AND NOT EXISTS (
            SELECT FROM jobs.unit_run AS f
            WHERE f.run = r.run AND f.unit_id = r.unit_id AND f.outcome = 'failed'
        )
    RETURNING r.run
),

counted AS (
    SELECT
        f.run,
        count(*) AS successes
    FROM forgotten AS f
    GROUP BY f.run
),

noted AS (
    UPDATE jobs.run AS p SET forgotten = p.forgotten + c.successes
    FROM counted AS c
    WHERE p.id = c.run
)

SELECT coalesce(sum(c.successes), 0)::bigint FROM counted AS c
$$;
COMMENT ON FUNCTION jobs.forget_successes(text) IS
'Deletes replaced successes of a job that does not keep every success.';

-- rights ----------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION jobs.list_venues() FROM public;
REVOKE ALL ON FUNCTION jobs.enter(text, uuid, uuid[], bigint[], bigint) FROM public;
REVOKE ALL ON FUNCTION jobs.forget_successes(text) FROM public;
GRANT EXECUTE ON FUNCTION
jobs.list_venues(), jobs.enter(text, uuid, uuid[], bigint[], bigint),
jobs.forget_successes(text)
TO analytics_jobs;
GRANT USAGE ON SCHEMA source, jobs TO analytics_jobs, analytics_lister;
GRANT SELECT ON source.adapter TO analytics_jobs;
GRANT SELECT ON jobs.plan TO analytics_jobs;
GRANT SELECT, INSERT, UPDATE
ON jobs.run, jobs.batch, jobs.unit_run, jobs.fence, jobs.dead_letter TO analytics_jobs;
GRANT SELECT, INSERT, UPDATE, DELETE
ON jobs.checkpoint, jobs.action, jobs.dead_letter_payload TO analytics_jobs;

-- Without a tenant set, this policy raises an error instead of showing an empty table.
ALTER TABLE jobs.dead_letter_payload ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON jobs.dead_letter_payload TO analytics_jobs
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);

-- These tables have no personal data. Plan and finish read them across tenants; the API has no
-- access. The owner has policies for jobs.forget_successes().
ALTER TABLE jobs.run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.run TO analytics_jobs, analytics_owner USING (TRUE);
ALTER TABLE jobs.batch ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.batch TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.unit_run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.unit_run TO analytics_jobs, analytics_owner USING (TRUE);
ALTER TABLE jobs.fence ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.fence TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.checkpoint ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.checkpoint TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.action ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.action TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.dead_letter ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.dead_letter TO analytics_jobs USING (TRUE);
ALTER TABLE source.adapter ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody ON source.adapter USING (TRUE);

-- A new owner of a function needs CREATE on the schema, only while the owner changes.
GRANT CREATE ON SCHEMA jobs TO analytics_lister;
ALTER FUNCTION jobs.list_venues() OWNER TO analytics_lister;
REVOKE CREATE ON SCHEMA jobs FROM analytics_lister;
