-- Incremental nights of RFM scoring: what its state rests on, who moved between segments under
-- which rules; and runs that are asked to build anew, or only to say what they would change.

-- one rule everywhere: what a sale is, and what it is worth at a moment ----------------------

-- The adapter makes the views of schema source after this migration.
SET LOCAL check_function_bodies = off;

-- A text that the planner takes into the statement that calls it: a plain SELECT, STABLE, no SET.
CREATE FUNCTION source.sales(
    tenant uuid,
    venues uuid[],
    as_of timestamptz,
    -- null: from the first sale on
    since timestamptz,
    -- null: of every currency
    in_currency text,
    -- null: of everybody
    customers uuid[]
) RETURNS TABLE (
    venue_id uuid,
    customer_id uuid,
    ordered_at timestamptz,
    net_cents bigint,
    refunded_at timestamptz,
    refund_updated_at timestamptz,
    fingerprint bigint,
    left_out text
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
WITH order_of_venue AS (
    SELECT
        o.venue_id,
        o.order_id,
        o.customer_id,
        o.ordered_at,
        o.amount,
        o.currency,
        CASE WHEN o.amount BETWEEN 0 AND 9999999999.99 THEN (o.amount * 100)::bigint END AS cents
    FROM source.orders AS o
    WHERE
        o.venue_id = ANY(venues)
        AND o.tenant_id = tenant
        AND o.status IN ('paid', 'refunded')
        AND (customers IS NULL OR o.customer_id = ANY(customers))
        AND (
            (o.ordered_at < as_of AND (o.ordered_at >= since OR since IS NULL))
            OR o.ordered_at > now()
            OR o.ordered_at IS NULL
        )
),

refunded AS MATERIALIZED (
    SELECT
        r.order_id,
        -- a negative refund takes nothing back, and no refund is more than the largest amount
        sum((least(greatest(r.amount, 0), 9999999999.99) * 100)::bigint)::bigint AS cents,
        max(r.refunded_at) AS refunded_at,
        max(r.updated_at) AS updated_at
    FROM source.refunds AS r
    WHERE
        r.venue_id = ANY(venues)
        AND r.tenant_id = tenant
        AND r.refunded_at < as_of
        AND (
            customers IS NULL
            OR r.order_id = ANY(
                ARRAY(
                    SELECT o.order_id FROM source.orders AS o
                    WHERE
                        o.venue_id = ANY(venues)
                        AND o.tenant_id = tenant
                        AND o.status IN ('paid', 'refunded')
                        AND o.customer_id = ANY(customers)
                )
            )
        )
    GROUP BY r.order_id
)

-- The join is FULL because that one is never a nested loop: the planner's guess at the number of
-- refunds is far too low (measured on 150,000 orders of a venue: 70 s instead of 1 s).
SELECT
    o.venue_id,
    o.customer_id,
    o.ordered_at,
    o.cents - coalesce(r.cents, 0),
    r.refunded_at,
    r.updated_at,
    uuid_hash_extended(
        o.order_id,
        uuid_hash_extended(
            o.customer_id,
            timestamp_hash_extended(
                o.ordered_at AT TIME ZONE 'UTC', o.cents - coalesce(r.cents, 0)
            )
        )
    ),
    -- what stands first is said
    CASE
        WHEN o.order_id IS NULL THEN 'no sale'
        WHEN o.ordered_at IS NULL OR NOT isfinite(o.ordered_at) THEN 'time missing'
        WHEN o.ordered_at >= as_of THEN 'time in the future'
        WHEN o.amount IS NULL THEN 'amount missing'
        WHEN o.amount < 0 THEN 'amount negative'
        WHEN o.cents IS NULL THEN 'amount too large'
        WHEN o.currency IS NULL THEN 'currency missing'
        WHEN o.currency <> in_currency THEN 'other currency'
        WHEN r.cents >= o.cents THEN 'refunded in whole'
        WHEN o.customer_id IS NULL THEN 'guest'
    END
FROM order_of_venue AS o
FULL JOIN refunded AS r ON o.order_id = r.order_id
$$;
COMMENT ON FUNCTION source.sales(uuid, uuid[], timestamptz, timestamptz, text, uuid[]) IS
'One row a sale of some venues before a moment, and one a refund of what is none: a purchase unless
left_out says why not, worth net_cents. Fingerprints of purchases tell whether two sets are equal.';

-- state -------------------------------------------------------------------------------------

ALTER TABLE public.customer_rfm_state
-- of the purchases that the row rests on: their fingerprints, each bit added without carry
ADD COLUMN fingerprint bigint NOT NULL DEFAULT 0;
ALTER TABLE public.customer_rfm_state ALTER COLUMN fingerprint DROP DEFAULT;

ALTER TABLE public.venue_rfm_state
-- as of when all customers were last built from the source; null: the next night does
ADD COLUMN full_as_of timestamptz;

-- Whole days of 24 hours, as the days of an interval between two moments are: no clock change
-- counts. Without the division by 86400 that stood here, the views are read a third faster.
CREATE OR REPLACE FUNCTION public.whole_days(since timestamptz, until timestamptz) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN extract(DAY FROM until - since)::integer;

-- segments of both rule sets; Lost is the same in both
CREATE OR REPLACE FUNCTION public.rfm_segment_name(code smallint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE code
    WHEN 1 THEN 'VIP' WHEN 2 THEN 'Regular' WHEN 3 THEN 'At-Risk' WHEN 4 THEN 'Lost'
    WHEN 11 THEN 'Champions' WHEN 12 THEN 'Loyal' WHEN 13 THEN 'Can''t Lose'
    WHEN 14 THEN 'At Risk' WHEN 15 THEN 'New' WHEN 16 THEN 'Promising'
    WHEN 17 THEN 'Potential Loyalist' WHEN 18 THEN 'Need Attention'
    WHEN 19 THEN 'About to Sleep' WHEN 20 THEN 'Hibernating'
END;

-- who moved, and under which rules ----------------------------------------------------------

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

CREATE VIEW public.customer_segment_history WITH (security_invoker) AS
SELECT
    c.customer_id,
    c.venue_id,
    c.tenant_id,
    c.as_of AS changed_at,
    public.rfm_segment_name(c.previous_segment)::varchar(50) AS previous_segment,
    public.rfm_segment_name(c.segment)::varchar(50) AS segment,
    round(c.spent_cents / 100.0, 2) AS total_spent,
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

GRANT SELECT, INSERT, UPDATE, DELETE
ON public.venue_rfm_rules, public.customer_segment_change TO analytics_jobs;
GRANT SELECT ON
public.venue_rfm_rules, public.customer_segment_change, public.customer_segment_history,
public.segment_movements
TO analytics_jobs, analytics_reader;

ALTER TABLE public.venue_rfm_rules ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public.venue_rfm_rules
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
ALTER TABLE public.customer_segment_change ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public.customer_segment_change
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);

-- history -----------------------------------------------------------------------------------

ALTER TABLE jobs.run
-- build everything from the source, whatever is known
ADD COLUMN full_build boolean NOT NULL DEFAULT FALSE,
-- only say what would change
ADD COLUMN dry_run boolean NOT NULL DEFAULT FALSE;
ALTER TABLE jobs.venue_run
ADD COLUMN dry_run boolean NOT NULL DEFAULT FALSE,
ADD COLUMN mode text CHECK (mode IN ('full', 'incremental'));
