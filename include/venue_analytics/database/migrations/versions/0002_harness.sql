-- What makes a venue's run safe: fencing tokens, checkpoints, rounds of a batch, dead letters.

-- a run has a row a plan ----------------------------------------------------------------------

ALTER TABLE jobs.run
ADD COLUMN plan_try integer NOT NULL DEFAULT 1 CHECK (plan_try > 0),
-- what earlier runs of the job left undone when they ended without their finish, in words
ADD COLUMN left_behind jsonb NOT NULL DEFAULT '[]',
DROP CONSTRAINT run_once,
ADD CONSTRAINT plan_once UNIQUE (deployment, job, run_id, plan_try);
ALTER TABLE jobs.run ALTER COLUMN plan_try DROP DEFAULT;
CREATE INDEX run_planned ON jobs.run (job, planned_at);
COMMENT ON TABLE jobs.run IS
'One row a plan of a run; the one of the highest plan_try holds.';

-- rounds of a batch -----------------------------------------------------------------------------

ALTER TABLE jobs.batch
-- 0 until a try begins; what ended well in an earlier round is done again
ADD COLUMN round integer NOT NULL DEFAULT 1,
-- a new plan: the first try after it opens the next round
ADD COLUMN newly_planned boolean NOT NULL DEFAULT FALSE,
-- the run's clear number when this round ended well; a try that knows a higher one opens the next
ADD COLUMN ended_well_at_clear integer;
ALTER TABLE jobs.batch
ALTER COLUMN round SET DEFAULT 0, ALTER COLUMN newly_planned SET DEFAULT TRUE;

-- attempts --------------------------------------------------------------------------------------

ALTER TABLE jobs.venue_run
ADD COLUMN round integer NOT NULL DEFAULT 1,
ADD COLUMN try_number integer NOT NULL DEFAULT 1,
-- fencing token; null where an attempt failed before it had one
ADD COLUMN token bigint,
-- the run's clear number when the try began
ADD COLUMN clear_number integer NOT NULL DEFAULT 0,
-- the venue had gone: its rows were to be removed
ADD COLUMN venue_gone boolean NOT NULL DEFAULT FALSE,
-- trying again changes nothing: not repeated until somebody clears
ADD COLUMN permanent boolean NOT NULL DEFAULT FALSE,
ADD COLUMN error_type text,
ADD COLUMN traceback text;
ALTER TABLE jobs.venue_run
ALTER COLUMN round DROP DEFAULT,
ALTER COLUMN try_number DROP DEFAULT,
ALTER COLUMN clear_number DROP DEFAULT;

CREATE TABLE jobs.fence (
    job text NOT NULL,
    venue_id uuid NOT NULL,
    token bigint NOT NULL CHECK (token > 0),
    PRIMARY KEY (job, venue_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE jobs.fence IS
'One row a venue of a job: the newest fencing token. Never deleted, so that no token comes back.';

-- What history has from before: under FORCE the owner would see none of it.
ALTER TABLE jobs.run NO FORCE ROW LEVEL SECURITY;
ALTER TABLE jobs.batch NO FORCE ROW LEVEL SECURITY;
ALTER TABLE jobs.venue_run NO FORCE ROW LEVEL SECURITY;
UPDATE jobs.venue_run SET venue_gone = TRUE WHERE reason = 'venue gone: its rows removed';
-- Of attempts under a plan that was replaced, none counts.
UPDATE jobs.venue_run AS r SET round = 0
FROM jobs.run AS p
WHERE p.id = r.run AND r.plan_number < p.plan_number;
UPDATE jobs.batch AS b SET ended_well_at_clear = 0
FROM jobs.run AS p
WHERE p.id = b.run AND p.outcome = 'succeeded';
-- Attempts from before there were tokens get them in the order in which they began.
UPDATE jobs.venue_run AS r SET token = n.token
FROM (
    SELECT
        a.id,
        row_number() OVER (PARTITION BY a.job, a.venue_id ORDER BY a.id) AS token
    FROM jobs.venue_run AS a
) AS n
WHERE n.id = r.id;
INSERT INTO jobs.fence (job, venue_id, token)
SELECT
    r.job,
    r.venue_id,
    max(r.token)
FROM jobs.venue_run AS r
GROUP BY r.job, r.venue_id;
ALTER TABLE jobs.run FORCE ROW LEVEL SECURITY;
ALTER TABLE jobs.batch FORCE ROW LEVEL SECURITY;
ALTER TABLE jobs.venue_run FORCE ROW LEVEL SECURITY;

CREATE UNIQUE INDEX venue_run_token ON jobs.venue_run (job, venue_id, token);
CREATE INDEX venue_run_ended_well ON jobs.venue_run (job, venue_id, as_of, plan_number)
WHERE outcome IN ('succeeded', 'skipped');
CREATE INDEX venue_run_running ON jobs.venue_run (job) WHERE outcome = 'running';

CREATE TABLE jobs.checkpoint (
    job text NOT NULL,
    venue_id uuid NOT NULL,
    as_of timestamptz NOT NULL,
    rules_hash text NOT NULL,
    round integer NOT NULL,
    -- the later plan of those whose work it holds
    plan_number bigint NOT NULL,
    -- the step to do next, counted from 0
    step integer NOT NULL CHECK (step >= 0),
    -- where inside that step; null at its begin
    cursor jsonb,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (job, venue_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE jobs.checkpoint IS
'One row a venue whose steps are not all done; committed with the data.';

-- dead letters ----------------------------------------------------------------------------------

CREATE TABLE jobs.dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job text NOT NULL,
    venue_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    venue_name text NOT NULL,
    -- a whole venue, or one item (an event, a row) inside it
    kind text NOT NULL CHECK (kind IN ('venue', 'item')),
    -- the item's own key; of a venue '', or its as_of where a job keeps a result for each
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
    CONSTRAINT discarded_with_reason_and_name CHECK (
        state <> 'discarded' OR (reason IS NOT NULL AND ended_by IS NOT NULL)
    )
);
COMMENT ON TABLE jobs.dead_letter IS
'One row a venue whose tries are exhausted, or an item that cannot be processed.';
CREATE UNIQUE INDEX one_open_letter ON jobs.dead_letter (job, venue_id, kind, key)
WHERE state IN ('open', 'replaying');

CREATE TABLE jobs.dead_letter_payload (
    letter bigint NOT NULL REFERENCES jobs.dead_letter (id),
    tenant_id uuid NOT NULL,
    payload jsonb NOT NULL,
    PRIMARY KEY (letter, tenant_id)
);
COMMENT ON TABLE jobs.dead_letter_payload IS
'What could not be processed; may hold personal data, and is read under its tenant alone.';

-- the fence -------------------------------------------------------------------------------------

-- A transaction of the given token begins: the venue's tenant is set, its fence row locked. Of two
-- processes the one with the older token is refused here, whatever either believes of its lease.
CREATE FUNCTION jobs.enter(
    job_name text, venue uuid, tenant uuid, own_token bigint
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    newest bigint;
BEGIN
    IF tenant IS NULL THEN
        -- a policy that then showed no rows would have every customer deleted
        RAISE EXCEPTION 'venue % has no tenant: a transaction needs exactly one', venue
        USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM set_config('app.current_tenant_id', tenant::text, TRUE);
    SELECT f.token INTO newest FROM jobs.fence AS f
    WHERE f.job = job_name AND f.venue_id = venue
    FOR UPDATE;
    IF newest IS DISTINCT FROM own_token THEN
        RAISE EXCEPTION 'another attempt has taken over: its token is %, ours %', newest, own_token
        USING ERRCODE = 'VA001';
    END IF;
END $$;
COMMENT ON FUNCTION jobs.enter(text, uuid, uuid, bigint) IS
'Begins a transaction on a venue; raises VA001 if the token is not the newest.';

-- who may what ----------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION jobs.enter(text, uuid, uuid, bigint) FROM public;
GRANT EXECUTE ON FUNCTION jobs.enter(text, uuid, uuid, bigint) TO analytics_jobs;
GRANT UPDATE ON jobs.batch TO analytics_jobs;
REVOKE DELETE ON jobs.batch FROM analytics_jobs;
GRANT SELECT, INSERT, UPDATE ON jobs.fence, jobs.dead_letter TO analytics_jobs;
GRANT SELECT, INSERT, UPDATE, DELETE ON jobs.checkpoint, jobs.dead_letter_payload TO analytics_jobs;

ALTER TABLE jobs.fence ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.fence TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.checkpoint ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.checkpoint TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.dead_letter ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.dead_letter TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.dead_letter_payload ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON jobs.dead_letter_payload TO analytics_jobs
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
