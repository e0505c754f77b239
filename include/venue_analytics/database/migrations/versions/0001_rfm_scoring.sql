-- Schema `source` (the contract's views live there), schema `jobs` (history), and the target
-- tables of RFM scoring: two narrow state tables that are written, and views under the API's
-- names that derive from them whatever only ages with as_of.

CREATE TABLE source.adapter (
    only_row boolean PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    name text NOT NULL,
    -- ISO 4217; for adapters whose tables name no currency
    currency text,
    -- whether orders, refunds and customers carry updated_at: without it, every night is full
    keeps_updated_at boolean NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE source.adapter IS 'Which adapter defines the views of this schema.';

-- history -----------------------------------------------------------------------------------

CREATE SEQUENCE jobs.plan_number;

CREATE TABLE jobs.run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deployment uuid NOT NULL,
    job text NOT NULL,
    run_id text NOT NULL,
    -- a later plan of the same run draws a higher number and replaces the earlier one
    plan_number bigint NOT NULL,
    as_of timestamptz NOT NULL,
    force boolean NOT NULL,
    settings jsonb NOT NULL,
    -- what the plan found amiss in the source: venues without tenant, orders at unknown venues
    source_faults jsonb NOT NULL,
    planned_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    -- planned -> succeeded | failed
    outcome text NOT NULL DEFAULT 'planned' CHECK (outcome IN ('planned', 'succeeded', 'failed')),
    CONSTRAINT run_once UNIQUE (deployment, job, run_id)
);
COMMENT ON TABLE jobs.run IS 'One row a run of a job, as last planned.';

CREATE TABLE jobs.batch (
    run bigint NOT NULL REFERENCES jobs.run (id),
    number integer NOT NULL,
    label text NOT NULL,
    venues jsonb NOT NULL,
    PRIMARY KEY (run, number)
);
COMMENT ON TABLE jobs.batch IS 'The venues of one mapped task.';

CREATE TABLE jobs.venue_run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL REFERENCES jobs.run (id),
    plan_number bigint NOT NULL,
    batch integer NOT NULL,
    job text NOT NULL,
    venue_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    venue_name text NOT NULL,
    as_of timestamptz NOT NULL,
    rules_hash text NOT NULL,
    -- running -> succeeded | skipped | failed
    outcome text NOT NULL DEFAULT 'running'
    CHECK (outcome IN ('running', 'succeeded', 'skipped', 'failed')),
    reason text,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    host text NOT NULL,
    rows_read bigint,
    rows_written bigint,
    rows_unchanged bigint,
    rows_removed bigint,
    -- orders that were not counted, by kind
    left_out jsonb,
    -- the job's own figures, for people; no personal data
    summary jsonb,
    error text
);
COMMENT ON TABLE jobs.venue_run IS 'One row an attempt at one venue; append-only.';
CREATE INDEX venue_run_of_run ON jobs.venue_run (run, venue_id);
CREATE INDEX venue_run_of_tenant ON jobs.venue_run (job, tenant_id);

-- state -------------------------------------------------------------------------------------

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
    main_currency text,
    rules_hash text
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

-- words and formulas ------------------------------------------------------------------------

CREATE FUNCTION public.rfm_segment_name(code smallint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE code
    WHEN 1 THEN 'VIP' WHEN 2 THEN 'Regular' WHEN 3 THEN 'At-Risk' WHEN 4 THEN 'Lost'
END;

CREATE FUNCTION public.rfm_churn_risk_name(code smallint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE code WHEN 1 THEN 'low' WHEN 2 THEN 'medium' WHEN 3 THEN 'high' END;

-- Whole days of 24 hours: a clock change does not shorten one.
CREATE FUNCTION public.whole_days(since timestamptz, until timestamptz) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN floor(extract(EPOCH FROM until - since) / 86400)::integer;

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

-- views under the API's names ---------------------------------------------------------------

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
    round(c.spent_cents / 100.0, 2) AS total_spent,
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
    round(p.spent_cents / 100.0, 2) AS clv,
    round(p.spent_cents / (100.0 * p.purchases), 2) AS avg_order_value,
    round(public.purchases_per_year(p.purchases, p.lifespan_days), 2) AS purchase_frequency,
    p.lifespan_days AS customer_lifespan_days,
    p.purchases AS total_purchases,
    round(p.spent_cents / 100.0, 2) AS total_revenue,
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
    round(p.spent_cents / 100.0, 2) AS clv,
    round(p.spent_cents / (100.0 * p.purchases), 2) AS avg_order_value,
    round(public.purchases_per_year(p.purchases, p.lifespan_days), 2) AS purchase_frequency,
    p.lifespan_days AS customer_lifespan_days,
    p.purchases AS total_purchases,
    round(p.spent_cents / 100.0, 2) AS total_revenue,
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

-- who may what ------------------------------------------------------------------------------

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

REVOKE ALL ON FUNCTION jobs.list_venues() FROM public;
GRANT EXECUTE ON FUNCTION jobs.list_venues() TO analytics_jobs;
GRANT USAGE ON SCHEMA source, jobs TO analytics_jobs, analytics_lister;
GRANT SELECT ON source.adapter TO analytics_jobs;
GRANT USAGE ON SEQUENCE jobs.plan_number TO analytics_jobs;
GRANT SELECT, INSERT, UPDATE ON jobs.run, jobs.venue_run TO analytics_jobs;
GRANT SELECT, INSERT, DELETE ON jobs.batch TO analytics_jobs;
GRANT SELECT, INSERT, UPDATE, DELETE
ON public.customer_rfm_state, public.venue_rfm_state, public.customer_segments TO analytics_jobs;
GRANT SELECT ON
public.customer_rfm_state, public.venue_rfm_state, public.customer_segments,
public.customer_rfm_scores, public.customer_venue_value, public.customer_lifetime_value,
public.tenant_currency
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

-- History holds no personal data; plan and finish read it across tenants, the API not at all.
ALTER TABLE jobs.run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.run TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.batch ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.batch TO analytics_jobs USING (TRUE);
ALTER TABLE jobs.venue_run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs ON jobs.venue_run TO analytics_jobs USING (TRUE);
ALTER TABLE source.adapter ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody ON source.adapter USING (TRUE);

-- Changing a function's owner asks the new one for CREATE on the schema, for this moment only.
GRANT CREATE ON SCHEMA jobs TO analytics_lister;
ALTER FUNCTION jobs.list_venues() OWNER TO analytics_lister;
REVOKE CREATE ON SCHEMA jobs FROM analytics_lister;
