-- The target tables of RFM scoring: narrow state tables that the job writes, and views under the
-- API's names that compute every value that depends only on the state and as_of.

-- state -----------------------------------------------------------------------------------------

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
    -- false for customers that the source has deleted or does not have: they count in the venue's
    -- percentiles, but are not shown
    known boolean NOT NULL,
    PRIMARY KEY (venue_id, customer_id)
) WITH (fillfactor = 85);
CREATE INDEX customer_rfm_state_customer ON public.customer_rfm_state (customer_id);
-- A venue's best customers in the order of the view's total_spent, without reading the others. Its
-- cost: an update of a customer who bought writes indexes (44 of 100 changed rows of a night).
CREATE INDEX customer_rfm_state_spent
ON public.customer_rfm_state (venue_id, (spent_cents * 0.01) DESC)
WHERE known;
COMMENT ON TABLE public.customer_rfm_state IS
'One row per customer with purchases at a venue, written only when it changes.';

CREATE TABLE public.venue_rfm_state (
    venue_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    -- null until the first build is complete
    as_of timestamptz,
    -- ISO 4217 code of the scores; null until the venue has a sale
    currency text,
    -- that of most of its sales at the first build; applies unless settings or source set one
    main_currency text
) WITH (fillfactor = 50);
COMMENT ON TABLE public.venue_rfm_state IS
'One row per venue: the as_of and the currency of its scores.';

CREATE TABLE public.customer_segments (
    venue_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    segment_name varchar(50) NOT NULL,
    customer_count integer NOT NULL,
    -- wider than the audited (12,2) and (5,2), which overflowed for a box office that buys daily
    -- and for a venue that sells in rupiah
    total_revenue numeric(18, 2) NOT NULL,
    avg_order_value numeric(18, 2) NOT NULL,
    avg_lifetime_value numeric(18, 2) NOT NULL,
    avg_purchase_frequency numeric(12, 2) NOT NULL,
    last_calculated_at timestamptz NOT NULL,
    PRIMARY KEY (venue_id, segment_name)
) WITH (fillfactor = 50);
COMMENT ON TABLE public.customer_segments IS
'One row per segment of a venue, including empty ones.';

CREATE TABLE public.venue_rfm_rules (
    venue_id uuid NOT NULL,
    -- as_of of the first night under these rules; they apply until the since of the next row
    since timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    rules_hash text NOT NULL,
    -- ISO 4217 code of the purchases that count
    currency text,
    rules jsonb NOT NULL,
    PRIMARY KEY (venue_id, since)
);
COMMENT ON TABLE public.venue_rfm_rules IS
'One row per change of the rules that segment a venue''s customers; the first is its first build.';

CREATE TABLE public.customer_segment_change (
    venue_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    as_of timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    -- null: the customer was in no segment, or is no longer in one
    previous_segment smallint,
    segment smallint,
    spent_cents bigint NOT NULL,
    -- the rules changed that night: the change is not a movement of the customer
    by_rules boolean NOT NULL,
    PRIMARY KEY (venue_id, customer_id, as_of),
    CHECK (previous_segment IS DISTINCT FROM segment)
);
CREATE INDEX customer_segment_change_night ON public.customer_segment_change (venue_id, as_of);
COMMENT ON TABLE public.customer_segment_change IS
'One row per change of a customer''s segment at a venue. The first build of a venue adds no rows:
a customer''s initial segment is previous_segment of the first change, or the state if there is no
change.';

-- names and formulas ----------------------------------------------------------------------------

-- Segments of both rule sets; they share Lost.
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

-- Whole days of 24 hours, because the days of an interval between two moments ignore clock
-- changes. A division by 86400 seconds would make the views a third slower.
CREATE FUNCTION public.whole_days(since timestamptz, until timestamptz) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN date_part('day', until - since)::integer;

-- Purchases per year; a lifespan below 30 days counts as 30.
CREATE FUNCTION public.purchases_per_year(purchases bigint, lifespan_days integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN purchases * 365.25 / greatest(lifespan_days, 30);

-- The audited service's probability that a customer does not come back.
CREATE FUNCTION public.churn_probability(days_since_last integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN days_since_last <= 60 THEN 0.1
    WHEN days_since_last <= 90 THEN 0.2
    WHEN days_since_last <= 180 THEN 0.4
    ELSE 0.7
END;

-- Average order value x purchases per year x share. The purchases cancel out, which leaves one
-- division and one rounding.
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
COMMENT ON VIEW public.customer_rfm_scores IS 'One row per known customer of a venue.';

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
'One row per known customer of a venue: the customer''s value to that venue.';

CREATE VIEW public.tenant_currency WITH (security_invoker) AS
SELECT DISTINCT ON (v.tenant_id)
    v.tenant_id,
    v.currency
FROM public.venue_rfm_state AS v
WHERE v.currency IS NOT NULL
GROUP BY v.tenant_id, v.currency
ORDER BY v.tenant_id ASC, count(*) DESC, v.currency;
COMMENT ON VIEW public.tenant_currency IS
'One row per tenant: the currency of most of its venues; on a tie, the first by name.';

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
'One row per known customer of a tenant, over the venues that sell in the tenant''s currency.';

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
'One row per change of a customer''s segment at a venue, with the amount spent there by then and
the rules and currency in force. A null segment means none.';

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
'One row per venue, night and pair of segments that customers moved between, without changes of
rules. Select a period by a range of moved_at.';

-- rights ----------------------------------------------------------------------------------------

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

-- Without a tenant set, each of these policies raises an error instead of showing an empty table.
ALTER TABLE public.customer_rfm_state ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public.customer_rfm_state
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
-- The API does not see customers that are not known.
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
