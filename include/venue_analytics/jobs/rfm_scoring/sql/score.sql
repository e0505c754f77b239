-- One row: what scoring one venue read, wrote, removed and left out, and who moved. Everybody is
-- built from the source; only rows that differ are written.
WITH refunded AS MATERIALIZED (
    SELECT
        r.order_id,
        -- a negative refund takes nothing back, and no refund is more than the largest amount
        sum((least(greatest(r.amount, 0), 9999999999.99) * 100)::bigint)::bigint AS cents
    FROM source.refunds AS r
    WHERE
        r.venue_id = %(venue_id)s
        AND r.tenant_id = %(tenant_id)s
        AND r.refunded_at < %(as_of)s
    GROUP BY r.order_id
),

order_of_venue AS (
    SELECT
        o.order_id,
        o.customer_id,
        o.ordered_at,
        o.amount,
        o.currency
    FROM source.orders AS o
    WHERE
        o.venue_id = %(venue_id)s
        AND o.tenant_id = %(tenant_id)s
        AND o.status IN ('paid', 'refunded')
        AND (
            (
                o.ordered_at < %(as_of)s
                AND (o.ordered_at >= %(since)s OR %(since)s::timestamptz IS NULL)
            )
            OR o.ordered_at > now()
            OR o.ordered_at IS NULL
        )
),

-- A sale is a purchase unless something leaves it out; what stands first is said. The join is
-- FULL because that one is never a nested loop: the planner's guess at the number of refunds is
-- far too low (measured on 150,000 orders of a venue: 70 s instead of 1 s).
sale AS (
    SELECT
        o.customer_id,
        o.ordered_at,
        CASE
            WHEN o.order_id IS NULL THEN 'no sale'
            WHEN o.ordered_at IS NULL OR NOT isfinite(o.ordered_at) THEN 'time missing'
            WHEN o.ordered_at >= %(as_of)s THEN 'time in the future'
            WHEN o.amount IS NULL THEN 'amount missing'
            WHEN o.amount < 0 THEN 'amount negative'
            WHEN o.amount > 9999999999.99 THEN 'amount too large'
            WHEN o.currency IS NULL THEN 'currency missing'
            WHEN o.currency <> %(currency)s THEN 'other currency'
            WHEN r.cents >= (o.amount * 100)::bigint THEN 'refunded in whole'
            WHEN o.customer_id IS NULL THEN 'guest'
        END AS left_out,
        CASE
            WHEN o.amount BETWEEN 0 AND 9999999999.99
                THEN (o.amount * 100)::bigint - coalesce(r.cents, 0)
        END AS net_cents
    FROM order_of_venue AS o
    FULL JOIN refunded AS r ON o.order_id = r.order_id
),

customer_sale AS MATERIALIZED (
    SELECT
        s.customer_id,
        s.left_out,
        count(*) AS sales,
        sum(s.net_cents)::bigint AS spent_cents,
        min(s.ordered_at) AS first_purchase_at,
        max(s.ordered_at) AS last_purchase_at
    FROM sale AS s
    GROUP BY s.customer_id, s.left_out
),

-- The population of the percentiles: every customer but the erased. A customer's row of this
-- tenant says whether it is deleted; a row that belongs to no tenant says so where there is none.
customer AS (
    SELECT
        p.customer_id,
        p.sales::integer AS purchases,
        p.spent_cents,
        p.first_purchase_at,
        p.last_purchase_at,
        coalesce(NOT own.deleted, NOT everybodys.deleted, FALSE) AS known
    FROM customer_sale AS p
    LEFT JOIN source.customers AS own
        ON p.customer_id = own.customer_id AND own.tenant_id = %(tenant_id)s
    LEFT JOIN source.customers AS everybodys
        ON p.customer_id = everybodys.customer_id AND everybodys.tenant_id IS NULL
    WHERE
        p.left_out IS NULL
        AND coalesce(own.erased, FALSE) IS FALSE
        AND coalesce(everybodys.erased, FALSE) IS FALSE
),

-- Whole numbers throughout: rank() - 1 customers spent strictly less, out of population.
ranked AS (
    SELECT
        c.*,
        public.whole_days(c.last_purchase_at, %(as_of)s) AS days,
        (rank() OVER (ORDER BY c.spent_cents) - 1) * 100 AS spent_less_100,
        count(*) OVER () AS population
    FROM customer AS c
),

scored AS (
    SELECT
        r.*,
        CASE
            WHEN r.days <= %(recency_5)s THEN 5
            WHEN r.days <= %(recency_4)s THEN 4
            WHEN r.days <= %(recency_3)s THEN 3
            WHEN r.days <= %(recency_2)s THEN 2
            ELSE 1
        END::smallint AS recency_score,
        CASE
            WHEN r.purchases >= %(frequency_5)s THEN 5
            WHEN r.purchases >= %(frequency_4)s THEN 4
            WHEN r.purchases >= %(frequency_3)s THEN 3
            WHEN r.purchases >= %(frequency_2)s THEN 2
            ELSE 1
        END::smallint AS frequency_score,
        CASE
            WHEN r.spent_less_100 >= r.population * %(monetary_5)s THEN 5
            WHEN r.spent_less_100 >= r.population * %(monetary_4)s THEN 4
            WHEN r.spent_less_100 >= r.population * %(monetary_3)s THEN 3
            WHEN r.spent_less_100 >= r.population * %(monetary_2)s THEN 2
            ELSE 1
        END::smallint AS monetary_score
    FROM ranked AS r
    OFFSET 0
),

-- Codes as in rfm_segment_name() and rfm_churn_risk_name(). The segments are a table: of each
-- triple of scores, for customers who are not long gone; then of each, for those who are.
segmented AS (
    SELECT
        s.*,
        (%(segments)s::smallint[])[
            25 * s.recency_score + 5 * s.frequency_score + s.monetary_score - 30
            + CASE WHEN s.days > %(long_gone_after_days)s THEN 125 ELSE 0 END
        ] AS segment,
        CASE
            WHEN
                s.days > %(high_risk_after_days)s
                AND s.purchases >= %(high_risk_min_purchases)s
                THEN 3
            WHEN
                s.days > %(medium_risk_after_days)s
                AND s.purchases >= %(medium_risk_min_purchases)s
                THEN 2
            ELSE 1
        END::smallint AS churn_risk
    FROM scored AS s
),

-- What was noted at this as_of or later is overwritten: before it, the segments were these.
undone AS (
    SELECT
        c.customer_id,
        (array_agg(c.previous_segment ORDER BY c.as_of))[1] AS previous_segment
    FROM public.customer_segment_change AS c
    WHERE
        c.venue_id = %(venue_id)s
        AND c.tenant_id = %(tenant_id)s
        AND c.as_of >= %(as_of)s
        AND NOT %(dry_run)s
    GROUP BY c.customer_id
),

-- FULL joins, because those are never nested loops: guessing a few rows on both sides, the planner
-- made one of what stands and what is new (30,000 customers: 108 s instead of 2 s).
before AS (
    SELECT
        old.*,
        u.customer_id AS undone_customer_id,
        coalesce(old.customer_id, u.customer_id) AS any_customer_id,
        CASE
            WHEN u.customer_id IS NOT NULL THEN u.previous_segment
            WHEN old.known THEN old.segment
        END AS shown_segment
    FROM (
        SELECT * FROM public.customer_rfm_state
        WHERE venue_id = %(venue_id)s AND tenant_id = %(tenant_id)s
    ) AS old
    FULL JOIN undone AS u ON old.customer_id = u.customer_id
),

compared AS MATERIALIZED (
    SELECT
        s.*,
        CASE WHEN s.known THEN s.segment END AS shown_segment,
        coalesce(s.customer_id, b.any_customer_id) AS any_customer_id,
        b.undone_customer_id,
        b.shown_segment AS previous_segment,
        b.spent_cents AS previous_spent_cents,
        s.customer_id IS NULL AND b.customer_id IS NOT NULL AS is_gone,
        s.customer_id IS NOT NULL AND (
            b.customer_id IS NULL
            OR (
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
    FULL JOIN before AS b ON s.customer_id = b.any_customer_id
),

removed AS (
    DELETE FROM public.customer_rfm_state AS old
    WHERE
        old.venue_id = %(venue_id)s
        AND old.tenant_id = %(tenant_id)s
        AND old.customer_id = any(
            array(SELECT c.any_customer_id FROM compared AS c WHERE c.is_gone)
        )
        AND NOT %(dry_run)s
    RETURNING 1
),

written AS (
    INSERT INTO public.customer_rfm_state (
        venue_id, customer_id, tenant_id, first_purchase_at, last_purchase_at, created_at,
        spent_cents, purchases, recency_score, frequency_score, monetary_score, segment,
        churn_risk, known
    )
    SELECT
        %(venue_id)s,
        c.customer_id,
        %(tenant_id)s,
        c.first_purchase_at,
        c.last_purchase_at,
        %(as_of)s,
        c.spent_cents,
        c.purchases,
        c.recency_score,
        c.frequency_score,
        c.monetary_score,
        c.segment,
        c.churn_risk,
        c.known
    FROM compared AS c
    WHERE c.is_changed AND NOT %(dry_run)s
    ON CONFLICT (venue_id, customer_id) DO UPDATE
        SET
            first_purchase_at = excluded.first_purchase_at,
            last_purchase_at = excluded.last_purchase_at,
            spent_cents = excluded.spent_cents,
            purchases = excluded.purchases,
            recency_score = excluded.recency_score,
            frequency_score = excluded.frequency_score,
            monetary_score = excluded.monetary_score,
            segment = excluded.segment,
            churn_risk = excluded.churn_risk,
            known = excluded.known
    RETURNING 1
),

-- Nobody has moved at a venue's first build.
moved AS MATERIALIZED (
    SELECT
        c.any_customer_id AS customer_id,
        c.previous_segment,
        c.shown_segment AS segment,
        c.spent_cents,
        c.previous_spent_cents
    FROM compared AS c
    WHERE c.previous_segment IS DISTINCT FROM c.shown_segment AND NOT %(is_first)s
),

-- Not by NOT IN, which beyond work_mem is no hash (100,000 customers: 231 s instead of 4 s).
forgotten AS (
    DELETE FROM public.customer_segment_change AS c
    USING compared AS k
    WHERE
        c.venue_id = %(venue_id)s
        AND c.tenant_id = %(tenant_id)s
        AND c.customer_id = k.undone_customer_id
        AND (
            c.as_of > %(as_of)s
            OR (
                c.as_of = %(as_of)s
                AND (k.previous_segment IS NOT DISTINCT FROM k.shown_segment OR %(is_first)s)
            )
        )
        AND NOT %(dry_run)s
),

noted AS (
    INSERT INTO public.customer_segment_change (
        venue_id, customer_id, as_of, tenant_id, previous_segment, segment, spent_cents, by_rules
    )
    SELECT
        %(venue_id)s,
        m.customer_id,
        %(as_of)s,
        %(tenant_id)s,
        m.previous_segment,
        m.segment,
        -- of this night; whoever has left has spent nothing that counts
        coalesce(m.spent_cents, 0),
        %(by_rules)s
    FROM moved AS m
    WHERE NOT %(dry_run)s
    ON CONFLICT (venue_id, customer_id, as_of) DO UPDATE
        SET
            previous_segment = excluded.previous_segment,
            segment = excluded.segment,
            spent_cents = excluded.spent_cents,
            by_rules = excluded.by_rules
        WHERE
        (
            customer_segment_change.previous_segment, customer_segment_change.segment,
            customer_segment_change.spent_cents, customer_segment_change.by_rules
        ) IS DISTINCT FROM (
            excluded.previous_segment, excluded.segment, excluded.spent_cents, excluded.by_rules
        )
)

SELECT
    (
        SELECT coalesce(sum(s.sales), 0)
        FROM customer_sale AS s
        WHERE s.left_out IS DISTINCT FROM 'no sale'
    )::bigint AS sales,
    (SELECT count(*) FROM compared AS c WHERE c.customer_id IS NOT NULL) AS population,
    (
        SELECT count(*) FROM compared AS c
        WHERE c.previous_segment IS NOT NULL OR c.shown_segment IS NOT NULL
    ) AS shown_before_or_after,
    (SELECT count(*) FROM written) AS written,
    (SELECT count(*) FROM removed) AS removed,
    (
        SELECT coalesce(jsonb_object_agg(k.left_out, k.sales), '{}')
        FROM (
            SELECT
                s.left_out,
                sum(s.sales) AS sales
            FROM customer_sale AS s
            WHERE s.left_out <> 'no sale'
            GROUP BY s.left_out
        ) AS k
    ) AS left_out,
    (
        SELECT coalesce(jsonb_agg(to_jsonb(m.*)), '[]')
        FROM (
            SELECT
                public.rfm_segment_name(m.previous_segment) AS "from",
                public.rfm_segment_name(m.segment) AS "to",
                m.spent_cents IS NULL AS "left",
                count(*) AS customers,
                sum(coalesce(m.spent_cents, m.previous_spent_cents, 0))::bigint AS spent_cents
            FROM moved AS m
            GROUP BY m.previous_segment, m.segment, m.spent_cents IS NULL
        ) AS m
    ) AS movements;
