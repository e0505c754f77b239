-- Schema `source` (the contract's views live there), schema `jobs` (what makes a venue's run safe:
-- history, tokens, checkpoints, dead letters), and the target tables of RFM scoring: narrow state
-- tables that are written, and views under the API's names that derive from them whatever only
-- ages with as_of.

CREATE TABLE source.adapter (
    only_row boolean PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    name text NOT NULL,
    -- ISO 4217; for adapters whose tables name no currency
    currency text,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE source.adapter IS 'Which adapter defines the views of this schema.';

-- Money in cents, for adapters over amounts that are not; a fraction of a cent is rounded. What is
-- no number, or beyond all reckoning, is taken as too much.
CREATE FUNCTION source.cents(amount numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN abs(amount) < 90000000000000000 THEN (amount * 100)::bigint
    WHEN amount < 0 THEN -9000000000000000000
    WHEN amount > 0 THEN 9000000000000000000
END;

-- history ---------------------------------------------------------------------------------------

CREATE SEQUENCE jobs.plan_number;

CREATE TABLE jobs.run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deployment uuid NOT NULL,
    job text NOT NULL,
    run_id text NOT NULL,
    plan_try integer NOT NULL CHECK (plan_try > 0),
    -- a later plan draws a higher number
    plan_number bigint NOT NULL,
    as_of timestamptz NOT NULL,
    force boolean NOT NULL,
    -- only say what would change
    dry_run boolean NOT NULL,
    settings jsonb NOT NULL,
    -- what the plan found amiss in the source: venues without tenant, orders at unknown venues
    source_faults jsonb NOT NULL,
    -- what earlier runs of the job left undone when they ended without their finish, in words
    left_behind jsonb NOT NULL,
    planned_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    -- planned -> succeeded | failed
    outcome text NOT NULL DEFAULT 'planned' CHECK (outcome IN ('planned', 'succeeded', 'failed')),
    CONSTRAINT plan_once UNIQUE (deployment, job, run_id, plan_try)
);
CREATE INDEX run_planned ON jobs.run (job, planned_at);
COMMENT ON TABLE jobs.run IS
'One row a plan of a run; the one of the highest plan_try holds.';

CREATE TABLE jobs.batch (
    run bigint NOT NULL REFERENCES jobs.run (id),
    number integer NOT NULL,
    label text NOT NULL,
    venues jsonb NOT NULL,
    -- 0 until a try begins; what ended well in an earlier round is done again
    round integer NOT NULL DEFAULT 0,
    -- a new plan: the first try after it opens the next round
    newly_planned boolean NOT NULL DEFAULT TRUE,
    -- the run's clear number when the round ended well; a try that knows a higher one opens another
    ended_well_at_clear integer,
    PRIMARY KEY (run, number)
);
COMMENT ON TABLE jobs.batch IS 'The venues of one mapped task.';

CREATE TABLE jobs.venue_run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL REFERENCES jobs.run (id),
    plan_number bigint NOT NULL,
    batch integer NOT NULL,
    round integer NOT NULL,
    try_number integer NOT NULL,
    -- the run's clear number when the try began
    clear_number integer NOT NULL,
    job text NOT NULL,
    venue_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    venue_name text NOT NULL,
    -- the venue had gone: its rows were to be removed
    venue_gone boolean NOT NULL DEFAULT FALSE,
    as_of timestamptz NOT NULL,
    rules_hash text NOT NULL,
    dry_run boolean NOT NULL DEFAULT FALSE,
    -- fencing token; null where an attempt failed before it had one
    token bigint,
    -- running -> succeeded | skipped | failed
    outcome text NOT NULL DEFAULT 'running'
    CHECK (outcome IN ('running', 'succeeded', 'skipped', 'failed')),
    reason text,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    host text NOT NULL,
    -- opened for this venue alone: who dies in it is done last
    alone boolean NOT NULL,
    -- a failure that every venue would have met (Redis, the connection): none of them is suspect
    is_common boolean NOT NULL DEFAULT FALSE,
    -- what it took; venues of one transaction share its time by the rows that they read
    seconds double precision,
    rows_read bigint,
    rows_written bigint,
    rows_unchanged bigint,
    rows_removed bigint,
    -- orders that were not counted, by kind
    left_out jsonb,
    -- the job's own figures, for people; no personal data
    summary jsonb,
    -- trying again changes nothing: not repeated until somebody clears
    permanent boolean NOT NULL DEFAULT FALSE,
    error_type text,
    error text,
    traceback text
);
CREATE INDEX venue_run_of_run ON jobs.venue_run (run, venue_id);
CREATE INDEX venue_run_of_tenant ON jobs.venue_run (job, tenant_id);
CREATE UNIQUE INDEX venue_run_token ON jobs.venue_run (job, venue_id, token);
CREATE INDEX venue_run_ended_well ON jobs.venue_run (job, venue_id, as_of, plan_number)
WHERE outcome IN ('succeeded', 'skipped');
CREATE INDEX venue_run_running ON jobs.venue_run (job) WHERE outcome = 'running';
COMMENT ON TABLE jobs.venue_run IS 'One row an attempt at one venue; append-only.';

-- tokens and checkpoints ------------------------------------------------------------------------

CREATE TABLE jobs.fence (
    job text NOT NULL,
    venue_id uuid NOT NULL,
    token bigint NOT NULL CHECK (token > 0),
    PRIMARY KEY (job, venue_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE jobs.fence IS
'One row a venue of a job: the newest fencing token. Never deleted, so that no token comes back.';

-- A transaction on venues of one tenant begins: the tenant is set, their fence rows are locked. Of
-- two processes the one with the older token is refused here, whatever each believes of its lease.
CREATE FUNCTION jobs.enter(
    job_name text, tenant uuid, venues uuid[], own_tokens bigint[], limit_ms bigint
) RETURNS SETOF uuid
LANGUAGE plpgsql
AS $$
BEGIN
    IF tenant IS NULL THEN
        -- a policy that then showed no rows would have every customer deleted
        RAISE EXCEPTION 'venues % have no tenant: a transaction needs exactly one', venues
        USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM set_config('app.current_tenant_id', tenant::text, TRUE);
    IF limit_ms IS NOT NULL THEN
        PERFORM set_config('statement_timeout', limit_ms::text, TRUE);
    END IF;
    RETURN QUERY
    SELECT v.venue_id
    FROM unnest(venues, own_tokens) AS v (venue_id, token)
    LEFT JOIN (
        SELECT f.venue_id, f.token FROM jobs.fence AS f
        WHERE f.job = job_name AND f.venue_id = ANY(venues)
        ORDER BY f.venue_id
        FOR UPDATE
    ) AS newest ON v.venue_id = newest.venue_id
    WHERE newest.token IS DISTINCT FROM v.token;
END $$;
COMMENT ON FUNCTION jobs.enter(text, uuid, uuid[], bigint[], bigint) IS
'Begins a transaction on venues; returns those whose token is not the newest.';

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

-- RFM scoring: state ----------------------------------------------------------------------------

CREATE TABLE public.customer_rfm_state (
    venue_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    first_purchase_at timestamptz NOT NULL,
    last_purchase_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    spent_cents bigint NOT NULL CHECK (spent_cents >= 0),
    purchases integer NOT NULL CHECK (purchases > 0),
    recency_score smallint NOT NULL CHECK (recency_score BETWEEN 1 AND 5),
    frequency_score smallint NOT NULL CHECK (frequency_score BETWEEN 1 AND 5),
    monetary_score smallint NOT NULL CHECK (monetary_score BETWEEN 1 AND 5),
    segment smallint NOT NULL,
    churn_risk smallint NOT NULL CHECK (churn_risk BETWEEN 1 AND 3),
    -- false for customers whom the source does not know or has deleted: they count in the
    -- venue's percentiles, and nobody is shown them
    known boolean NOT NULL,
    PRIMARY KEY (venue_id, customer_id)
) WITH (fillfactor = 85);
CREATE INDEX customer_rfm_state_customer ON public.customer_rfm_state (customer_id);
-- A venue's best customers, in the order of the view's total_spent, without a look at others. It
-- makes updates of who has bought write indexes (44 of 100 changed rows of a night, measured).
CREATE INDEX customer_rfm_state_spent
ON public.customer_rfm_state (venue_id, (spent_cents * 0.01) DESC)
WHERE known;
COMMENT ON TABLE public.customer_rfm_state IS
'One row a customer with purchases at a venue, written only when it changes.';

CREATE TABLE public.venue_rfm_state (
    venue_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    -- null until the first build is complete
    as_of timestamptz,
    -- ISO 4217: what the scores are in; null until the venue has a sale
    currency text,
    -- that of most of its sales at its first build, kept; in force unless settings or source say
    main_currency text
) WITH (fillfactor = 50);
COMMENT ON TABLE public.venue_rfm_state IS
'One row a venue: the moment that its scores are as of.';

CREATE TABLE public.customer_segments (
    venue_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    segment_name varchar(50) NOT NULL,
    customer_count integer NOT NULL,
    -- wider than the audited (12,2) and (5,2): a box office that buys daily, or a venue that
    -- sells in rupiah, overflowed them
    total_revenue numeric(18, 2) NOT NULL,
    avg_order_value numeric(18, 2) NOT NULL,
    avg_lifetime_value numeric(18, 2) NOT NULL,
    avg_purchase_frequency numeric(12, 2) NOT NULL,
    last_calculated_at timestamptz NOT NULL,
    PRIMARY KEY (venue_id, segment_name)
) WITH (fillfactor = 50);
COMMENT ON TABLE public.customer_segments IS
'One row a segment of a venue, empty segments too.';

CREATE TABLE public.venue_rfm_rules (
    venue_id uuid NOT NULL,
    -- as of the first night under these rules; they hold until the next row's
    since timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    rules_hash text NOT NULL,
    -- ISO 4217, of the purchases that count
    currency text,
    rules jsonb NOT NULL,
    PRIMARY KEY (venue_id, since)
);
COMMENT ON TABLE public.venue_rfm_rules IS
'One row a change of the rules that a venue''s customers are segmented by; the first is its first
build.';

CREATE TABLE public.customer_segment_change (
    venue_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    as_of timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    -- null: was in none, is in none any more
    previous_segment smallint,
    segment smallint,
    spent_cents bigint NOT NULL,
    -- the rules have changed that night: it says nothing of the customer
    by_rules boolean NOT NULL,
    PRIMARY KEY (venue_id, customer_id, as_of),
    CHECK (previous_segment IS DISTINCT FROM segment)
);
CREATE INDEX customer_segment_change_night ON public.customer_segment_change (venue_id, as_of);
COMMENT ON TABLE public.customer_segment_change IS
'One row a change of a customer''s segment at a venue. Nobody has one of the venue''s first build:
previous_segment of the first change, or the state where there is none, tells what it began with.';

-- words and formulas ----------------------------------------------------------------------------

-- segments of both rule sets; Lost is the same in both
CREATE FUNCTION public.rfm_segment_name(code smallint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE code
    WHEN 1 THEN 'VIP' WHEN 2 THEN 'Regular' WHEN 3 THEN 'At-Risk' WHEN 4 THEN 'Lost'
    WHEN 11 THEN 'Champions' WHEN 12 THEN 'Loyal' WHEN 13 THEN 'Can''t Lose'
    WHEN 14 THEN 'At Risk' WHEN 15 THEN 'New' WHEN 16 THEN 'Promising'
    WHEN 17 THEN 'Potential Loyalist' WHEN 18 THEN 'Need Attention'
    WHEN 19 THEN 'About to Sleep' WHEN 20 THEN 'Hibernating'
END;

CREATE FUNCTION public.rfm_churn_risk_name(code smallint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE code WHEN 1 THEN 'low' WHEN 2 THEN 'medium' WHEN 3 THEN 'high' END;

-- Whole days of 24 hours, as the days of an interval between two moments are: no clock change
-- counts. A division by 86400 seconds would make the views a third slower.
CREATE FUNCTION public.whole_days(since timestamptz, until timestamptz) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN date_part('day', until - since)::integer;

-- Purchases a year; a customer of a few days is taken as one of 30.
CREATE FUNCTION public.purchases_per_year(purchases bigint, lifespan_days integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN purchases * 365.25 / greatest(lifespan_days, 30);

-- The audited service's chance that a customer does not come back.
CREATE FUNCTION public.churn_probability(days_since_last integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN days_since_last <= 60 THEN 0.1
    WHEN days_since_last <= 90 THEN 0.2
    WHEN days_since_last <= 180 THEN 0.4
    ELSE 0.7
END;

-- Average order value x purchases a year; the purchases cancel out, so that only one division
-- is left, and rounding happens once.
CREATE FUNCTION public.spend_per_year(
    spent_cents bigint, lifespan_days integer, share numeric
) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN spent_cents * 365.25 * share / (100 * greatest(lifespan_days, 30));

-- views under the API's names -------------------------------------------------------------------

CREATE VIEW public.customer_rfm_scores WITH (security_invoker) AS
SELECT
    c.customer_id,
    c.venue_id,
    c.tenant_id,
    c.recency_score::integer AS recency_score,
    c.frequency_score::integer AS frequency_score,
    c.monetary_score::integer AS monetary_score,
    (c.recency_score + c.frequency_score + c.monetary_score)::integer AS total_score,
    public.whole_days(c.last_purchase_at, v.as_of) AS days_since_last_purchase,
    c.purchases AS total_purchases,
    c.spent_cents * 0.01 AS total_spent,
    round(c.spent_cents / (100.0 * c.purchases), 2) AS average_order_value,
    public.rfm_segment_name(c.segment)::varchar(50) AS segment,
    public.rfm_churn_risk_name(c.churn_risk)::varchar(20) AS churn_risk,
    v.as_of AS calculated_at,
    c.created_at,
    v.as_of AS updated_at
FROM public.customer_rfm_state AS c
INNER JOIN public.venue_rfm_state AS v ON c.venue_id = v.venue_id
WHERE c.known;
COMMENT ON VIEW public.customer_rfm_scores IS 'One row a known customer of a venue.';

CREATE VIEW public.customer_venue_value WITH (security_invoker) AS
SELECT
    p.customer_id,
    p.venue_id,
    p.tenant_id,
    p.spent_cents * 0.01 AS clv,
    round(p.spent_cents / (100.0 * p.purchases), 2) AS avg_order_value,
    round(public.purchases_per_year(p.purchases, p.lifespan_days), 2) AS purchase_frequency,
    p.lifespan_days AS customer_lifespan_days,
    p.purchases AS total_purchases,
    p.spent_cents * 0.01 AS total_revenue,
    round(public.spend_per_year(p.spent_cents, p.lifespan_days, 1 - p.churn), 2)
        AS predicted_clv_12_months,
    round(
        public.spend_per_year(p.spent_cents, p.lifespan_days, (1 - p.churn) * (2 - p.churn)), 2
    ) AS predicted_clv_24_months,
    p.churn::numeric(5, 4) AS churn_probability,
    p.currency,
    p.as_of AS calculated_at
FROM (
    SELECT
        c.customer_id,
        c.venue_id,
        c.tenant_id,
        c.spent_cents,
        c.purchases,
        v.currency,
        v.as_of,
        greatest(public.whole_days(c.first_purchase_at, v.as_of), 1) AS lifespan_days,
        public.churn_probability(public.whole_days(c.last_purchase_at, v.as_of)) AS churn
    FROM public.customer_rfm_state AS c
    INNER JOIN public.venue_rfm_state AS v ON c.venue_id = v.venue_id
    WHERE c.known
) AS p;
COMMENT ON VIEW public.customer_venue_value IS
'One row a known customer of a venue: what the customer is worth to that venue.';

CREATE VIEW public.tenant_currency WITH (security_invoker) AS
SELECT DISTINCT ON (v.tenant_id)
    v.tenant_id,
    v.currency
FROM public.venue_rfm_state AS v
WHERE v.currency IS NOT NULL
GROUP BY v.tenant_id, v.currency
ORDER BY v.tenant_id ASC, count(*) DESC, v.currency;
COMMENT ON VIEW public.tenant_currency IS
'One row a tenant: the currency of most of its venues (of equals, the first by name).';

CREATE VIEW public.customer_lifetime_value WITH (security_invoker) AS
SELECT
    p.customer_id,
    p.tenant_id,
    NULL::uuid AS venue_id,
    p.spent_cents * 0.01 AS clv,
    round(p.spent_cents / (100.0 * p.purchases), 2) AS avg_order_value,
    round(public.purchases_per_year(p.purchases, p.lifespan_days), 2) AS purchase_frequency,
    p.lifespan_days AS customer_lifespan_days,
    p.purchases AS total_purchases,
    p.spent_cents * 0.01 AS total_revenue,
    round(public.spend_per_year(p.spent_cents, p.lifespan_days, 1 - p.churn), 2)
        AS predicted_clv_12_months,
    round(
        public.spend_per_year(p.spent_cents, p.lifespan_days, (1 - p.churn) * (2 - p.churn)), 2
    ) AS predicted_clv_24_months,
    p.churn::numeric(5, 4) AS churn_probability,
    p.currency,
    p.venues_left_out,
    p.as_of AS calculated_at
FROM (
    SELECT
        s.customer_id,
        s.tenant_id,
        s.currency,
        s.spent_cents,
        s.purchases,
        s.venues_left_out,
        s.as_of,
        greatest(public.whole_days(s.first_purchase_at, s.as_of), 1) AS lifespan_days,
        public.churn_probability(public.whole_days(s.last_purchase_at, s.as_of)) AS churn
    FROM (
        SELECT
            c.customer_id,
            c.tenant_id,
            t.currency,
            sum(c.spent_cents) FILTER (WHERE v.currency = t.currency)::bigint AS spent_cents,
            sum(c.purchases) FILTER (WHERE v.currency = t.currency)::integer AS purchases,
            min(c.first_purchase_at) FILTER (WHERE v.currency = t.currency) AS first_purchase_at,
            max(c.last_purchase_at) FILTER (WHERE v.currency = t.currency) AS last_purchase_at,
            max(v.as_of) FILTER (WHERE v.currency = t.currency) AS as_of,
            (count(*) FILTER (WHERE v.currency <> t.currency))::integer AS venues_left_out
        FROM public.customer_rfm_state AS c
        INNER JOIN public.venue_rfm_state AS v ON c.venue_id = v.venue_id
        INNER JOIN public.tenant_currency AS t ON c.tenant_id = t.tenant_id
        WHERE c.known
        GROUP BY c.customer_id, c.tenant_id, t.currency
    ) AS s
    WHERE s.purchases IS NOT NULL
) AS p;
COMMENT ON VIEW public.customer_lifetime_value IS
'One row a known customer of a tenant, over the venues that sell in the tenant''s currency.';

CREATE VIEW public.customer_segment_history WITH (security_invoker) AS
SELECT
    c.customer_id,
    c.venue_id,
    c.tenant_id,
    c.as_of AS changed_at,
    public.rfm_segment_name(c.previous_segment)::varchar(50) AS previous_segment,
    public.rfm_segment_name(c.segment)::varchar(50) AS segment,
    c.spent_cents * 0.01 AS total_spent,
    CASE WHEN c.by_rules THEN 'rules' ELSE 'movement' END::varchar(20) AS kind,
    r.rules_hash,
    r.currency
FROM public.customer_segment_change AS c
LEFT JOIN LATERAL (
    SELECT
        r.rules_hash,
        r.currency
    FROM public.venue_rfm_rules AS r
    WHERE r.venue_id = c.venue_id AND r.since <= c.as_of
    ORDER BY r.since DESC
    LIMIT 1
) AS r ON TRUE;
COMMENT ON VIEW public.customer_segment_history IS
'One row a change of a customer''s segment at a venue, with what was spent there by then, and the
rules and currency in force; null is none.';

CREATE VIEW public.segment_movements WITH (security_invoker) AS
SELECT
    c.venue_id,
    c.tenant_id,
    c.as_of AS moved_at,
    public.rfm_segment_name(c.previous_segment)::varchar(50) AS previous_segment,
    public.rfm_segment_name(c.segment)::varchar(50) AS segment,
    count(*)::integer AS customers,
    round(sum(c.spent_cents) / 100.0, 2) AS total_spent,
    (
        SELECT r.currency FROM public.venue_rfm_rules AS r
        WHERE r.venue_id = c.venue_id AND r.since <= c.as_of
        ORDER BY r.since DESC
        LIMIT 1
    ) AS currency
FROM public.customer_segment_change AS c
WHERE NOT c.by_rules
GROUP BY c.venue_id, c.tenant_id, c.as_of, c.previous_segment, c.segment;
COMMENT ON VIEW public.segment_movements IS
'One row a night of a venue, and a pair of segments that customers moved between; a change of rules
is no movement. A period is a range of moved_at.';

-- the venues of every tenant --------------------------------------------------------------------

-- The adapter makes source.venues after this migration.
SET LOCAL check_function_bodies = off;

CREATE FUNCTION jobs.list_venues()
RETURNS TABLE (
    venue_id uuid, tenant_id uuid, name text, timezone text, currency text, open boolean
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'SELECT v.venue_id, v.tenant_id, v.name, v.timezone, v.currency, v.open FROM source.venues AS v';
COMMENT ON FUNCTION jobs.list_venues() IS
'The venues of every tenant: the one thing that a job may see across tenants.';

-- who may what ----------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION jobs.list_venues() FROM public;
REVOKE ALL ON FUNCTION jobs.enter(text, uuid, uuid[], bigint[], bigint) FROM public;
GRANT EXECUTE ON FUNCTION
jobs.list_venues(), jobs.enter(text, uuid, uuid[], bigint[], bigint)
TO analytics_jobs;
GRANT USAGE ON SCHEMA source, jobs TO analytics_jobs, analytics_lister;
GRANT SELECT ON source.adapter TO analytics_jobs;
GRANT USAGE ON SEQUENCE jobs.plan_number TO analytics_jobs;
GRANT SELECT, INSERT, UPDATE
ON jobs.run, jobs.batch, jobs.venue_run, jobs.fence, jobs.dead_letter TO analytics_jobs;
GRANT SELECT, INSERT, UPDATE, DELETE
ON jobs.checkpoint, jobs.dead_letter_payload TO analytics_jobs;
GRANT SELECT, INSERT, UPDATE, DELETE
ON
public.customer_rfm_state, public.venue_rfm_state, public.customer_segments,
public.venue_rfm_rules, public.customer_segment_change
TO analytics_jobs;
GRANT SELECT ON
public.customer_rfm_state, public.venue_rfm_state, public.customer_segments,
public.customer_rfm_scores, public.customer_venue_value, public.customer_lifetime_value,
public.tenant_currency, public.venue_rfm_rules, public.customer_segment_change,
public.customer_segment_history, public.segment_movements
TO analytics_jobs, analytics_reader;

-- Without a tenant set, each of these policies raises; it never shows an empty table.
ALTER TABLE public.customer_rfm_state ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public.customer_rfm_state
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
-- The API is shown nobody whom the source does not know.
CREATE POLICY known_only ON public.customer_rfm_state
AS RESTRICTIVE FOR SELECT TO analytics_reader USING (known);
ALTER TABLE public.venue_rfm_state ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public.venue_rfm_state
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
ALTER TABLE public.customer_segments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public.customer_segments
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
ALTER TABLE public.venue_rfm_rules ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public.venue_rfm_rules
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
ALTER TABLE public.customer_segment_change ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public.customer_segment_change
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
ALTER TABLE jobs.dead_letter_payload ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON jobs.dead_letter_payload TO analytics_jobs
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);

-- These hold no personal data; plan and finish read them across tenants, the API not at all.
ALTER TABLE jobs.run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.run TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.batch ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.batch TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.venue_run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.venue_run TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.fence ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.fence TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.checkpoint ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.checkpoint TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.dead_letter ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.dead_letter TO analytics_jobs USING (TRUE);
ALTER TABLE source.adapter ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody ON source.adapter USING (TRUE);

-- Changing a function's owner asks the new one for CREATE on the schema, for this moment only.
GRANT CREATE ON SCHEMA jobs TO analytics_lister;
ALTER FUNCTION jobs.list_venues() OWNER TO analytics_lister;
REVOKE CREATE ON SCHEMA jobs FROM analytics_lister;
