-- One row per venue of the tenant: what scoring it read, wrote, removed and left out, its segments
-- and its movements. All venues have the same rules. Every customer is computed from the source;
-- only rows that differ are written.
WITH standing AS MATERIALIZED (
    SELECT
        g.venue_id, g.currency, v.main_currency,
        r.rules_hash AS rules_hash_before, r.currency AS currency_before
    -- g.currency: the one that settings or source set; null if neither does
    FROM unnest(%(venue_ids)s::uuid[], %(currencies)s::text[]) AS g (venue_id, currency)
    LEFT JOIN public.venue_rfm_state AS v
        ON g.venue_id = v.venue_id AND v.tenant_id = %(tenant_id)s
    LEFT JOIN LATERAL ( -- noqa: ST05
        SELECT r.rules_hash, r.currency
        FROM public.venue_rfm_rules AS r
        WHERE
            r.venue_id = v.venue_id AND r.tenant_id = v.tenant_id AND r.since < %(as_of)s
        ORDER BY r.since DESC
        LIMIT 1
    ) AS r ON TRUE
    WHERE v.venue_id IS NOT NULL OR %(dry_run)s
),

-- Refunds of the whole tenant, because a refund is matched by its order, not by its venue. Amounts
-- are clamped: a negative one refunds nothing, and none exceeds the largest amount of an order.
refunded AS MATERIALIZED (
    SELECT
        r.order_id,
        sum(least(greatest(r.amount_cents, 0), 999999999999)) FILTER (
            WHERE r.refunded_at < %(as_of)s
        )::bigint AS cents
    FROM source.refunds AS r
    WHERE r.tenant_id = %(tenant_id)s
    GROUP BY r.order_id
),

-- A FULL join, because PostgreSQL never runs it as a nested loop: the planner's estimate of the
-- number of refunds is far too low (measured on a venue's 150,000 orders: 70 s instead of 1 s).
order_of_venue AS (
    SELECT
        o.*,
        CASE
            WHEN r.order_id IS NOT NULL THEN r.cents
            WHEN o.refunded_at < %(as_of)s THEN o.amount_cents
        END AS refunded_cents
    FROM (
        SELECT o.*
        FROM source.orders AS o
        WHERE
            o.venue_id = any(%(venue_ids)s::uuid[]) AND o.tenant_id = %(tenant_id)s AND o.is_sale
            AND (o.ordered_at < %(as_of)s OR o.ordered_at > now() OR o.ordered_at IS NULL)
            AND (
                %(since)s::timestamptz IS NULL
                OR coalesce(o.ordered_at >= %(since)s, TRUE)
                -- the first build needs all sales of a venue for its main currency
                OR (SELECT bool_or(s.main_currency IS NULL) FROM standing AS s)
            )
    ) AS o
    FULL JOIN refunded AS r ON o.order_id = r.order_id
),

-- A sale is a purchase unless one of these reasons leaves it out; the first one is reported.
sale AS (
    SELECT
        o.venue_id, o.customer_id, o.ordered_at, o.currency, o.amount_cents, o.refunded_cents,
        CASE
            WHEN o.order_id IS NULL THEN 'refund alone'
            WHEN o.ordered_at < %(since)s THEN 'before the look-back'
            WHEN o.ordered_at IS NULL OR NOT isfinite(o.ordered_at) THEN 'time missing'
            WHEN o.ordered_at >= %(as_of)s THEN 'time in the future'
            WHEN o.amount_cents IS NULL THEN 'amount missing'
            WHEN o.amount_cents < 0 THEN 'amount negative'
            WHEN o.amount_cents > 999999999999 THEN 'amount too large'
            WHEN o.currency IS NULL THEN 'currency missing'
            WHEN o.refunded_cents >= o.amount_cents THEN 'refunded in whole'
            WHEN o.customer_id IS NULL THEN 'guest'
        END AS left_out
    FROM order_of_venue AS o
),

by_currency AS MATERIALIZED (
    SELECT
        s.venue_id, s.customer_id, s.currency, s.left_out,
        count(*) AS sales,
        sum(s.amount_cents - coalesce(s.refunded_cents, 0)) FILTER (
            WHERE s.left_out IS NULL
        )::bigint AS spent_cents,
        min(s.ordered_at) AS first_purchase_at,
        max(s.ordered_at) AS last_purchase_at
    FROM sale AS s
    GROUP BY s.venue_id, s.customer_id, s.currency, s.left_out
),

-- The currency of most of a venue's sales; on a tie, the first by name.
main_currency AS (
    SELECT DISTINCT ON (c.venue_id) c.venue_id, c.currency
    FROM by_currency AS c
    WHERE
        c.currency IS NOT NULL
        AND coalesce(c.left_out NOT IN ('time missing', 'time in the future'), TRUE)
    GROUP BY c.venue_id, c.currency
    ORDER BY c.venue_id ASC, sum(c.sales) DESC, c.currency ASC
),

venue AS MATERIALIZED (
    SELECT
        v.*,
        -- a first build has no movements; a change of rules or currency is not a movement
        v.rules_hash_before IS NULL AND NOT %(dry_run)s AS is_first,
        v.has_other_rules OR coalesce(v.currency_before <> v.currency, FALSE) AS by_rules,
        (v.has_other_rules OR v.currency_before IS DISTINCT FROM v.currency) AS rules_are_new
    FROM (
        SELECT
            s.venue_id, s.rules_hash_before, s.currency_before,
            coalesce(s.main_currency, m.currency) AS main_currency,
            coalesce(s.currency, s.main_currency, m.currency) AS currency,
            (s.rules_hash_before IS DISTINCT FROM %(rules_hash)s) AS has_other_rules
        FROM standing AS s
        LEFT JOIN main_currency AS m ON s.venue_id = m.venue_id
    ) AS v
),

-- LEFT joins and a boolean filter keep the planner's estimates realistic. If it expects few
-- customers, every later join becomes a nested loop. A venue of another tenant counts no sales.
customer_sale AS MATERIALIZED (
    SELECT s.*, s.left_out IS NULL AS is_counted
    FROM (
        SELECT
            c.venue_id, c.customer_id, c.sales, c.spent_cents,
            c.first_purchase_at, c.last_purchase_at,
            CASE
                WHEN
                    coalesce(c.currency <> v.currency, v.venue_id IS NULL)
                    AND coalesce(c.left_out IN ('refunded in whole', 'guest'), TRUE)
                    THEN 'other currency'
                ELSE c.left_out
            END AS left_out
        FROM by_currency AS c
        LEFT JOIN venue AS v ON c.venue_id = v.venue_id
        WHERE c.left_out IS DISTINCT FROM 'before the look-back'
    ) AS s
),

-- The population of the percentiles: all customers except the erased. `deleted` comes from the
-- customer's row of this tenant, or if there is none, from its row without tenant.
customer AS MATERIALIZED (
    SELECT
        p.venue_id, p.customer_id, p.sales::integer AS purchases, p.spent_cents,
        p.first_purchase_at, p.last_purchase_at,
        coalesce(NOT own.deleted, NOT everybodys.deleted, FALSE) AS known
    FROM customer_sale AS p
    LEFT JOIN source.customers AS own
        ON p.customer_id = own.customer_id AND own.tenant_id = %(tenant_id)s
    LEFT JOIN source.customers AS everybodys
        ON p.customer_id = everybodys.customer_id AND everybodys.tenant_id IS NULL
    WHERE
        p.is_counted
        AND coalesce(own.erased, FALSE) IS FALSE
        AND coalesce(everybodys.erased, FALSE) IS FALSE
),

-- At least p percent of n customers spent strictly less than a customer does who spent more than
-- the ceil(n x p / 100)th of them, in ascending order. Integer arithmetic only.
cut AS MATERIALIZED (
    SELECT
        s.venue_id,
        (
            SELECT array_agg(s.spent[(s.customers * p.percent + 99) / 100] + 1 ORDER BY p.percent)
            FROM unnest(%(monetary)s::integer[]) AS p (percent)
        ) AS monetary
    FROM (
        SELECT
            c.venue_id, count(*) AS customers,
            array_agg(c.spent_cents ORDER BY c.spent_cents) AS spent
        FROM customer AS c
        GROUP BY c.venue_id
    ) AS s
),

-- A score is 1, plus 1 for each bound that is reached.
scored AS (
    SELECT
        c.*,
        (1 + width_bucket(c.last_purchase_at, %(recency)s::timestamptz[]))::smallint
            AS recency_score,
        (1 + width_bucket(c.purchases, %(frequency)s::integer[]))::smallint AS frequency_score,
        (1 + width_bucket(c.spent_cents, k.monetary))::smallint AS monetary_score
    FROM customer AS c
    INNER JOIN cut AS k ON c.venue_id = k.venue_id
    OFFSET 0
),

-- Codes as in rfm_segment_name() and rfm_churn_risk_name(). The array of segments has 125 entries,
-- one per triple of scores, for customers who are not long gone, then 125 for those who are.
segmented AS (
    SELECT
        s.*,
        (%(segments)s::smallint[])[
            25 * s.recency_score + 5 * s.frequency_score + s.monetary_score - 30
            + CASE WHEN s.last_purchase_at >= %(not_long_gone)s THEN 0 ELSE 125 END
        ] AS segment,
        CASE
            WHEN s.last_purchase_at >= %(low_risk)s THEN 1
            WHEN
                s.last_purchase_at < %(not_high_risk)s
                AND s.purchases >= %(high_risk_min_purchases)s
                THEN 3
            WHEN s.purchases >= %(medium_risk_min_purchases)s THEN 2
            ELSE 1
        END::smallint AS churn_risk
    FROM scored AS s
),

-- Changes recorded at this as_of or later are overwritten. previous_segment is the segment before
-- the first of them.
undone AS (
    SELECT
        c.venue_id, c.customer_id,
        (array_agg(c.previous_segment ORDER BY c.as_of))[1] AS previous_segment,
        array_agg(c.ctid) FILTER (WHERE c.as_of > %(as_of)s) AS later,
        array_agg(c.ctid) FILTER (WHERE c.as_of = %(as_of)s) AS tonights
    FROM public.customer_segment_change AS c
    WHERE
        c.venue_id = any(%(venue_ids)s::uuid[]) AND c.tenant_id = %(tenant_id)s
        AND c.as_of >= %(as_of)s
        AND NOT %(dry_run)s
    GROUP BY c.venue_id, c.customer_id
),

before AS (
    SELECT c.*, c.ctid AS place
    FROM public.customer_rfm_state AS c
    WHERE c.venue_id = any(%(venue_ids)s::uuid[]) AND c.tenant_id = %(tenant_id)s
),

-- FULL joins, because PostgreSQL never runs them as nested loops: with estimates of a few rows on
-- both sides, the planner chose one (30,000 customers: 108 s instead of 2 s).
compared AS MATERIALIZED (
    SELECT
        coalesce(s.venue_id, b.venue_id, u.venue_id) AS venue_id,
        coalesce(s.customer_id, b.customer_id, u.customer_id) AS customer_id,
        s.first_purchase_at, s.last_purchase_at, s.spent_cents, s.purchases, s.recency_score,
        s.frequency_score, s.monetary_score, s.segment, s.churn_risk, s.known,
        CASE WHEN s.known THEN s.segment END AS shown_segment,
        CASE
            WHEN u.customer_id IS NOT NULL THEN u.previous_segment
            WHEN b.known THEN b.segment
        END AS previous_segment,
        b.spent_cents AS previous_spent_cents,
        u.later, u.tonights,
        -- the place of a row whose customer no longer counts
        CASE WHEN s.customer_id IS NULL THEN b.place END AS gone,
        s.customer_id IS NOT NULL AND b.customer_id IS NULL AS is_new,
        s.customer_id IS NOT NULL AND b.customer_id IS NOT NULL AND (
            (
                b.first_purchase_at, b.last_purchase_at, b.spent_cents, b.purchases,
                b.recency_score, b.frequency_score, b.monetary_score, b.segment, b.churn_risk,
                b.known
            ) IS DISTINCT FROM (
                s.first_purchase_at, s.last_purchase_at, s.spent_cents, s.purchases,
                s.recency_score, s.frequency_score, s.monetary_score, s.segment, s.churn_risk,
                s.known
            )
        ) AS is_changed
    FROM segmented AS s
    FULL JOIN before AS b ON s.venue_id = b.venue_id AND s.customer_id = b.customer_id
    FULL JOIN undone AS u
        ON
            coalesce(s.venue_id, b.venue_id) = u.venue_id
            AND coalesce(s.customer_id, b.customer_id) = u.customer_id
),

-- Delete by ctid, because that is never a nested loop. It is safe: the fence lock of the venue
-- keeps every other process from changing these rows.
removed AS (
    DELETE FROM public.customer_rfm_state AS old
    WHERE
        old.ctid = any(array(SELECT c.gone FROM compared AS c WHERE c.gone IS NOT NULL))
        AND old.tenant_id = %(tenant_id)s
        AND NOT %(dry_run)s
),

-- New rows are inserted without ON CONFLICT, which would take a third of a first build's writing.
inserted AS (
    INSERT INTO public.customer_rfm_state (
        venue_id, customer_id, tenant_id, created_at,
        first_purchase_at, last_purchase_at, spent_cents, purchases, recency_score,
        frequency_score, monetary_score, segment, churn_risk, known
    )
    SELECT
        c.venue_id, c.customer_id, %(tenant_id)s, %(as_of)s,
        c.first_purchase_at, c.last_purchase_at, c.spent_cents, c.purchases, c.recency_score,
        c.frequency_score, c.monetary_score, c.segment, c.churn_risk, c.known
    FROM compared AS c
    WHERE c.is_new AND NOT %(dry_run)s
    -- so that a venue's rows are adjacent on disk
    ORDER BY c.venue_id, c.customer_id
),

-- An upsert looks up each row by its key; an UPDATE with a join depends on the join's plan.
changed AS (
    INSERT INTO public.customer_rfm_state (
        venue_id, customer_id, tenant_id, created_at,
        first_purchase_at, last_purchase_at, spent_cents, purchases, recency_score,
        frequency_score, monetary_score, segment, churn_risk, known
    )
    SELECT
        c.venue_id, c.customer_id, %(tenant_id)s, %(as_of)s,
        c.first_purchase_at, c.last_purchase_at, c.spent_cents, c.purchases, c.recency_score,
        c.frequency_score, c.monetary_score, c.segment, c.churn_risk, c.known
    FROM compared AS c
    WHERE c.is_changed AND NOT %(dry_run)s
    ON CONFLICT (venue_id, customer_id) DO UPDATE
        SET (
            first_purchase_at, last_purchase_at, spent_cents, purchases, recency_score,
            frequency_score, monetary_score, segment, churn_risk, known
        ) = (
            excluded.first_purchase_at, excluded.last_purchase_at, excluded.spent_cents,
            excluded.purchases, excluded.recency_score, excluded.frequency_score,
            excluded.monetary_score, excluded.segment, excluded.churn_risk, excluded.known
        )
),

moved AS MATERIALIZED (
    SELECT c.*, v.by_rules
    FROM compared AS c
    INNER JOIN venue AS v ON c.venue_id = v.venue_id
    WHERE c.previous_segment IS DISTINCT FROM c.shown_segment AND NOT v.is_first
),

forgotten AS (
    DELETE FROM public.customer_segment_change AS c
    WHERE
        c.ctid = any(
            array(
                SELECT unnest(k.later) FROM compared AS k
                UNION ALL
                SELECT unnest(k.tonights) FROM compared AS k
                WHERE k.previous_segment IS NOT DISTINCT FROM k.shown_segment
            )
        )
        AND c.tenant_id = %(tenant_id)s
        AND NOT %(dry_run)s
),

noted AS (
    INSERT INTO public.customer_segment_change (
        venue_id, customer_id, as_of, tenant_id, previous_segment, segment, spent_cents, by_rules
    )
    SELECT
        m.venue_id, m.customer_id, %(as_of)s, %(tenant_id)s, m.previous_segment, m.shown_segment,
        -- as of this night; a customer who has left has no spend that counts
        coalesce(m.spent_cents, 0),
        m.by_rules
    FROM moved AS m
    WHERE NOT %(dry_run)s
    ON CONFLICT (venue_id, customer_id, as_of) DO UPDATE
        SET (previous_segment, segment, spent_cents, by_rules) = (
            excluded.previous_segment, excluded.segment, excluded.spent_cents, excluded.by_rules
        )
        WHERE
        (
            customer_segment_change.previous_segment, customer_segment_change.segment,
            customer_segment_change.spent_cents, customer_segment_change.by_rules
        ) IS DISTINCT FROM (
            excluded.previous_segment, excluded.segment, excluded.spent_cents, excluded.by_rules
        )
),

figures AS (
    SELECT
        c.venue_id, c.shown_segment,
        count(*) AS customers,
        sum(c.spent_cents) AS spent_cents,
        sum(c.purchases) AS purchases,
        sum(greatest(public.whole_days(c.first_purchase_at, %(as_of)s), 30)) AS days
    FROM compared AS c
    WHERE c.shown_segment IS NOT NULL
    GROUP BY c.venue_id, c.shown_segment
),

-- One row per segment of the rules in force, including empty ones.
segment AS MATERIALIZED (
    SELECT
        v.venue_id,
        public.rfm_segment_name(code.segment) AS name,
        coalesce(f.customers, 0) AS customers,
        coalesce(round(f.spent_cents / 100, 2), 0) AS revenue,
        coalesce(round(f.spent_cents / (100 * f.purchases), 2), 0) AS avg_order_value,
        coalesce(round(f.spent_cents / (100 * f.customers), 2), 0) AS avg_lifetime_value,
        coalesce(round(f.purchases * 365.25 / f.days, 2), 0) AS avg_purchase_frequency
    FROM venue AS v
    CROSS JOIN unnest(%(codes)s::smallint[]) AS code (segment)
    LEFT JOIN figures AS f ON v.venue_id = f.venue_id AND code.segment = f.shown_segment
),

other_segments AS (
    DELETE FROM public.customer_segments AS s
    WHERE
        s.venue_id = any(%(venue_ids)s::uuid[]) AND s.tenant_id = %(tenant_id)s
        AND s.segment_name NOT IN (SELECT g.name FROM segment AS g)
        AND NOT %(dry_run)s
),

summarized AS (
    INSERT INTO public.customer_segments (
        venue_id, tenant_id, segment_name, customer_count, total_revenue, avg_order_value,
        avg_lifetime_value, avg_purchase_frequency, last_calculated_at
    )
    SELECT
        g.venue_id, %(tenant_id)s, g.name, g.customers, g.revenue, g.avg_order_value,
        g.avg_lifetime_value, g.avg_purchase_frequency, %(as_of)s
    FROM segment AS g
    WHERE NOT %(dry_run)s
    ON CONFLICT (venue_id, segment_name) DO UPDATE
        SET (
            customer_count, total_revenue, avg_order_value, avg_lifetime_value,
            avg_purchase_frequency, last_calculated_at
        ) = (
            excluded.customer_count, excluded.total_revenue, excluded.avg_order_value,
            excluded.avg_lifetime_value, excluded.avg_purchase_frequency,
            excluded.last_calculated_at
        )
        WHERE customer_segments.* IS DISTINCT FROM excluded.*
),

-- New rules apply from this as_of on. Rules recorded at a later as_of are deleted, and so are those
-- of this as_of if the rules are not new.
other_rules AS (
    DELETE FROM public.venue_rfm_rules AS r
    USING venue AS v
    WHERE
        r.venue_id = v.venue_id AND r.tenant_id = %(tenant_id)s
        AND (r.since > %(as_of)s OR (r.since = %(as_of)s AND NOT v.rules_are_new))
        AND NOT %(dry_run)s
),

new_rules AS (
    INSERT INTO public.venue_rfm_rules (venue_id, since, tenant_id, rules_hash, currency, rules)
    SELECT v.venue_id, %(as_of)s, %(tenant_id)s, %(rules_hash)s, v.currency, %(rules)s
    FROM venue AS v
    WHERE v.rules_are_new AND NOT %(dry_run)s
    ON CONFLICT (venue_id, since) DO UPDATE
        SET (rules_hash, currency, rules) = (
            excluded.rules_hash, excluded.currency, excluded.rules
        )
        WHERE venue_rfm_rules.* IS DISTINCT FROM excluded.*
),

-- The views compute every age from this as_of.
state AS (
    UPDATE public.venue_rfm_state AS s
    SET (as_of, currency, main_currency) = (%(as_of)s, v.currency, v.main_currency)
    FROM venue AS v
    WHERE
        s.venue_id = v.venue_id AND s.tenant_id = %(tenant_id)s
        AND (s.as_of, s.currency, s.main_currency)
        IS DISTINCT FROM (%(as_of)s, v.currency, v.main_currency)
        AND NOT %(dry_run)s
),

-- The totals of each venue. MATERIALIZED, so that no nested loop computes them again per venue.
totals AS MATERIALIZED (
    SELECT
        c.venue_id,
        count(*) FILTER (WHERE c.gone IS NULL AND c.purchases IS NOT NULL) AS population,
        count(*) FILTER (
            WHERE c.previous_segment IS NOT NULL OR c.shown_segment IS NOT NULL
        ) AS shown_before_or_after,
        count(*) FILTER (WHERE c.is_new OR c.is_changed) AS written,
        count(c.gone) AS removed
    FROM compared AS c
    GROUP BY c.venue_id
),

sales_read AS MATERIALIZED (
    SELECT
        k.venue_id,
        sum(k.sales)::bigint AS sales,
        jsonb_object_agg(k.left_out, k.sales) FILTER (WHERE k.left_out IS NOT NULL) AS left_out
    FROM (
        SELECT s.venue_id, s.left_out, sum(s.sales) AS sales
        FROM customer_sale AS s
        GROUP BY s.venue_id, s.left_out
    ) AS k
    GROUP BY k.venue_id
),

movement AS MATERIALIZED (
    SELECT m.venue_id, jsonb_agg(to_jsonb(m.*) - 'venue_id') AS movements
    FROM (
        SELECT
            m.venue_id,
            public.rfm_segment_name(m.previous_segment) AS "from",
            public.rfm_segment_name(m.shown_segment) AS "to",
            m.spent_cents IS NULL AS "left",
            count(*) AS customers,
            sum(coalesce(m.spent_cents, m.previous_spent_cents, 0))::bigint AS spent_cents
        FROM moved AS m
        GROUP BY m.venue_id, m.previous_segment, m.shown_segment, m.spent_cents IS NULL
    ) AS m
    GROUP BY m.venue_id
),

segments AS MATERIALIZED (
    SELECT
        s.venue_id,
        jsonb_object_agg(s.name, s.customers) AS segments,
        sum(s.revenue)::text AS revenue
    FROM segment AS s
    GROUP BY s.venue_id
)

SELECT
    v.venue_id, v.currency,
    coalesce(r.sales, 0) AS sales,
    coalesce(r.left_out, '{}') AS left_out,
    coalesce(t.population, 0) AS population,
    coalesce(t.shown_before_or_after, 0) AS shown_before_or_after,
    coalesce(t.written, 0) AS written,
    coalesce(t.removed, 0) AS removed,
    g.segments,
    g.revenue,
    coalesce(m.movements, '[]') AS movements
FROM venue AS v
LEFT JOIN sales_read AS r ON v.venue_id = r.venue_id
LEFT JOIN totals AS t ON v.venue_id = t.venue_id
LEFT JOIN movement AS m ON v.venue_id = m.venue_id
LEFT JOIN segments AS g ON v.venue_id = g.venue_id;
