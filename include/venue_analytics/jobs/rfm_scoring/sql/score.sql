-- One row a venue: what scoring it read, wrote, removed and left out, and who moved. The venues are
-- one tenant's and under the same rules. Everybody is built from the source; only rows that differ
-- are written.
WITH given AS (
    SELECT v.*
    FROM unnest(
        %(venue_ids)s::uuid[],
        -- what is to count, where settings or source say; that of most of its sales so far
        %(currencies)s::text[],
        %(main_currencies)s::text[],
        -- in force before this as_of; null before the first build
        %(rules_hashes_before)s::text[],
        %(currencies_before)s::text[]
    ) AS v (venue_id, currency, main_currency, rules_hash_before, currency_before)
),

-- Of the whole tenant: a refund is found by its order, not by a venue.
refunded AS MATERIALIZED (
    SELECT
        r.order_id,
        -- a negative refund takes nothing back, and no refund is more than the largest amount
        sum(least(greatest(r.amount_cents, 0), 999999999999)) FILTER (
            WHERE r.refunded_at < %(as_of)s
        )::bigint AS cents
    FROM source.refunds AS r
    WHERE r.tenant_id = %(tenant_id)s
    GROUP BY r.order_id
),

-- The join is FULL because that one is never a nested loop: the planner's guess at the number of
-- refunds is far too low (measured on 150,000 orders of a venue: 70 s instead of 1 s).
order_of_venue AS (
    SELECT
        o.*,
        CASE
            WHEN r.order_id IS NOT NULL THEN r.cents
            WHEN o.refunded_at < %(as_of)s THEN o.amount_cents
        END AS refunded_cents
    FROM (
        SELECT
            o.order_id,
            o.venue_id,
            o.customer_id,
            o.ordered_at,
            o.refunded_at,
            o.amount_cents,
            o.currency
        FROM source.orders AS o
        WHERE
            o.venue_id = any(%(venue_ids)s::uuid[])
            AND o.tenant_id = %(tenant_id)s
            AND o.is_sale
            AND (
                (
                    o.ordered_at < %(as_of)s
                    AND (
                        %(since)s::timestamptz IS NULL
                        OR o.ordered_at >= %(since)s
                        -- a venue's main currency is that of all its sales
                        OR %(finds_main_currency)s
                    )
                )
                OR o.ordered_at > now()
                OR o.ordered_at IS NULL
            )
    ) AS o
    FULL JOIN refunded AS r ON o.order_id = r.order_id
),

-- A sale is a purchase unless something leaves it out; what stands first is said.
sale AS (
    SELECT
        o.venue_id,
        o.customer_id,
        o.ordered_at,
        o.currency,
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
        END AS left_out,
        CASE
            WHEN o.amount_cents BETWEEN 0 AND 999999999999
                THEN o.amount_cents - coalesce(o.refunded_cents, 0)
        END AS net_cents
    FROM order_of_venue AS o
),

by_currency AS MATERIALIZED (
    SELECT
        s.venue_id,
        s.customer_id,
        s.currency,
        s.left_out,
        count(*) AS sales,
        count(*) FILTER (WHERE s.ordered_at < %(as_of)s) AS sales_so_far,
        sum(s.net_cents)::bigint AS spent_cents,
        min(s.ordered_at) AS first_purchase_at,
        max(s.ordered_at) AS last_purchase_at
    FROM sale AS s
    GROUP BY s.venue_id, s.customer_id, s.currency, s.left_out
),

-- The currency of most of a venue's sales (of equals, the first by name).
main_currency AS (
    SELECT DISTINCT ON (c.venue_id)
        c.venue_id,
        c.currency
    FROM by_currency AS c
    WHERE c.currency IS NOT NULL AND c.sales_so_far > 0
    GROUP BY c.venue_id, c.currency
    ORDER BY c.venue_id ASC, sum(c.sales_so_far) DESC, c.currency ASC
),

venue AS MATERIALIZED (
    SELECT
        g.venue_id,
        coalesce(g.main_currency, m.currency) AS main_currency,
        coalesce(g.currency, g.main_currency, m.currency) AS currency,
        g.rules_hash_before IS NULL AND NOT %(dry_run)s AS is_first,
        (g.rules_hash_before IS DISTINCT FROM %(rules_hash)s) AS has_other_rules,
        g.currency_before
    FROM given AS g
    LEFT JOIN main_currency AS m ON g.venue_id = m.venue_id
),

customer_sale AS MATERIALIZED (
    SELECT
        c.venue_id,
        c.customer_id,
        c.sales,
        c.spent_cents,
        c.first_purchase_at,
        c.last_purchase_at,
        CASE
            WHEN
                c.currency <> v.currency
                AND coalesce(c.left_out IN ('refunded in whole', 'guest'), TRUE)
                THEN 'other currency'
            ELSE c.left_out
        END AS left_out
    FROM by_currency AS c
    INNER JOIN venue AS v ON c.venue_id = v.venue_id
    WHERE c.left_out IS DISTINCT FROM 'before the look-back'
),

-- The population of the percentiles: every customer but the erased. A customer's row of this
-- tenant says whether it is deleted; a row that belongs to no tenant says so where there is none.
customer AS MATERIALIZED (
    SELECT
        p.venue_id,
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

-- So many percent of n customers spent strictly less than whoever spent more than the
-- ceil(n x percent / 100)th of them: whole numbers throughout.
cut AS MATERIALIZED (
    SELECT
        s.venue_id,
        (
            SELECT array_agg(s.spent[(s.customers * p.percent + 99) / 100] + 1 ORDER BY p.percent)
            FROM unnest(%(monetary)s::integer[]) AS p (percent)
        ) AS monetary
    FROM (
        SELECT
            c.venue_id,
            count(*) AS customers,
            array_agg(c.spent_cents ORDER BY c.spent_cents) AS spent
        FROM customer AS c
        GROUP BY c.venue_id
    ) AS s
),

-- One point, and one for each bound that is reached.
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

-- Codes as in rfm_segment_name() and rfm_churn_risk_name(). The segments are a table: of each
-- triple of scores, for customers who are not long gone; then of each, for those who are.
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

-- What was noted at this as_of or later is overwritten: before it, the segments were these.
undone AS (
    SELECT
        c.venue_id,
        c.customer_id,
        (array_agg(c.previous_segment ORDER BY c.as_of))[1] AS previous_segment,
        array_agg(c.ctid) FILTER (WHERE c.as_of > %(as_of)s) AS later,
        array_agg(c.ctid) FILTER (WHERE c.as_of = %(as_of)s) AS tonights
    FROM public.customer_segment_change AS c
    WHERE
        c.venue_id = any(%(venue_ids)s::uuid[])
        AND c.tenant_id = %(tenant_id)s
        AND c.as_of >= %(as_of)s
        AND NOT %(dry_run)s
    GROUP BY c.venue_id, c.customer_id
),

-- FULL joins, because those are never nested loops: guessing a few rows on both sides, the planner
-- made one of what stands and what is new (30,000 customers: 108 s instead of 2 s).
before AS (
    SELECT
        old.*,
        u.later,
        u.tonights,
        coalesce(old.venue_id, u.venue_id) AS any_venue_id,
        coalesce(old.customer_id, u.customer_id) AS any_customer_id,
        CASE
            WHEN u.customer_id IS NOT NULL THEN u.previous_segment
            WHEN old.known THEN old.segment
        END AS shown_segment
    FROM (
        SELECT
            c.*,
            c.ctid AS place
        FROM public.customer_rfm_state AS c
        WHERE c.venue_id = any(%(venue_ids)s::uuid[]) AND c.tenant_id = %(tenant_id)s
    ) AS old
    FULL JOIN undone AS u ON old.venue_id = u.venue_id AND old.customer_id = u.customer_id
),

compared AS MATERIALIZED (
    SELECT
        s.*,
        CASE WHEN s.known THEN s.segment END AS shown_segment,
        coalesce(s.venue_id, b.any_venue_id) AS any_venue_id,
        coalesce(s.customer_id, b.any_customer_id) AS any_customer_id,
        b.later,
        b.tonights,
        b.shown_segment AS previous_segment,
        b.spent_cents AS previous_spent_cents,
        -- where its row is, if there is nobody for it any more
        CASE WHEN s.customer_id IS NULL THEN b.place END AS gone,
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
    FULL JOIN before AS b ON s.venue_id = b.any_venue_id AND s.customer_id = b.any_customer_id
),

-- Nobody has moved at a venue's first build.
moved AS MATERIALIZED (
    SELECT
        c.any_venue_id AS venue_id,
        c.any_customer_id AS customer_id,
        c.previous_segment,
        c.shown_segment AS segment,
        c.spent_cents,
        c.previous_spent_cents,
        v.has_other_rules OR coalesce(v.currency_before <> v.currency, FALSE) AS by_rules
    FROM compared AS c
    INNER JOIN venue AS v ON c.any_venue_id = v.venue_id
    WHERE c.previous_segment IS DISTINCT FROM c.shown_segment AND NOT v.is_first
),

-- Rows are deleted by their place, which is never a nested loop. Nobody else changes them: whoever
-- does a venue holds its fence.
removed AS (
    DELETE FROM public.customer_rfm_state AS old
    WHERE
        old.ctid = any(array(SELECT c.gone FROM compared AS c WHERE c.gone IS NOT NULL))
        AND old.tenant_id = %(tenant_id)s
        AND NOT %(dry_run)s
    RETURNING old.venue_id
),

written AS (
    INSERT INTO public.customer_rfm_state (
        venue_id, customer_id, tenant_id, first_purchase_at, last_purchase_at, created_at,
        spent_cents, purchases, recency_score, frequency_score, monetary_score, segment,
        churn_risk, known
    )
    SELECT
        c.venue_id,
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
        SET (
            first_purchase_at, last_purchase_at, spent_cents, purchases, recency_score,
            frequency_score, monetary_score, segment, churn_risk, known
        ) = (
            excluded.first_purchase_at, excluded.last_purchase_at, excluded.spent_cents,
            excluded.purchases, excluded.recency_score, excluded.frequency_score,
            excluded.monetary_score, excluded.segment, excluded.churn_risk, excluded.known
        )
    RETURNING customer_rfm_state.venue_id
),

forgotten AS (
    DELETE FROM public.customer_segment_change AS c
    WHERE
        c.ctid = any(
            array(
                SELECT unnest(k.later)
                FROM compared AS k
                UNION ALL
                SELECT unnest(k.tonights)
                FROM compared AS k
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
        m.venue_id,
        m.customer_id,
        %(as_of)s,
        %(tenant_id)s,
        m.previous_segment,
        m.segment,
        -- of this night; whoever has left has spent nothing that counts
        coalesce(m.spent_cents, 0),
        m.by_rules
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
),

-- What is told of each venue; MATERIALIZED, so that no nested loop counts anew for each.
population AS MATERIALIZED (
    SELECT
        c.any_venue_id AS venue_id,
        count(c.customer_id) AS customers,
        count(*) FILTER (
            WHERE c.previous_segment IS NOT NULL OR c.shown_segment IS NOT NULL
        ) AS shown_before_or_after
    FROM compared AS c
    GROUP BY c.any_venue_id
),

looked_at AS MATERIALIZED (
    SELECT
        k.venue_id,
        sum(k.sales)::bigint AS sales,
        jsonb_object_agg(k.left_out, k.sales) FILTER (WHERE k.left_out IS NOT NULL) AS left_out
    FROM (
        SELECT
            s.venue_id,
            s.left_out,
            sum(s.sales) AS sales
        FROM customer_sale AS s
        GROUP BY s.venue_id, s.left_out
    ) AS k
    GROUP BY k.venue_id
),

movement AS MATERIALIZED (
    SELECT
        m.venue_id,
        jsonb_agg(to_jsonb(m.*) - 'venue_id') AS movements
    FROM (
        SELECT
            m.venue_id,
            public.rfm_segment_name(m.previous_segment) AS "from",
            public.rfm_segment_name(m.segment) AS "to",
            m.spent_cents IS NULL AS "left",
            count(*) AS customers,
            sum(coalesce(m.spent_cents, m.previous_spent_cents, 0))::bigint AS spent_cents
        FROM moved AS m
        GROUP BY m.venue_id, m.previous_segment, m.segment, m.spent_cents IS NULL
    ) AS m
    GROUP BY m.venue_id
)

SELECT
    v.venue_id,
    v.currency,
    v.main_currency,
    (
        v.has_other_rules OR v.currency_before IS DISTINCT FROM v.currency
    ) AS rules_are_new,
    coalesce(r.sales, 0) AS sales,
    coalesce(p.customers, 0) AS population,
    coalesce(p.shown_before_or_after, 0) AS shown_before_or_after,
    (SELECT count(*) FROM written AS w WHERE w.venue_id = v.venue_id) AS written,
    (SELECT count(*) FROM removed AS w WHERE w.venue_id = v.venue_id) AS removed,
    coalesce(r.left_out, '{}') AS left_out,
    coalesce(m.movements, '[]') AS movements
FROM venue AS v
LEFT JOIN looked_at AS r ON v.venue_id = r.venue_id
LEFT JOIN population AS p ON v.venue_id = p.venue_id
LEFT JOIN movement AS m ON v.venue_id = m.venue_id;
