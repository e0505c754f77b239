-- One row a venue: whose rows may no longer be right, since what was read before the watermark; and
-- of all its purchases the fingerprint, which says whether only those rows are wrong.
WITH erased AS MATERIALIZED (
    SELECT c.customer_id
    FROM source.customers AS c
    WHERE c.erased AND (c.tenant_id = %(tenant_id)s OR c.tenant_id IS NULL)
),

-- From where the look-back began last time: what has left it since is there, and is no purchase.
sale AS (
    SELECT
        s.venue_id,
        s.customer_id,
        s.fingerprint,
        CASE
            WHEN s.ordered_at < %(since)s THEN 'before the look-back'
            WHEN s.left_out IS NOT NULL THEN s.left_out
            WHEN s.customer_id IN (SELECT e.customer_id FROM erased AS e) THEN 'erased'
        END AS left_out,
        (
            s.ordered_at >= %(watermark)s
            OR s.refunded_at >= %(watermark)s
            OR s.refund_updated_at >= %(watermark)s
            OR s.ordered_at < %(since)s
        ) AS is_due
    FROM source.sales(
        %(tenant_id)s, %(venue_ids)s, %(as_of)s, %(since_before)s, %(currency)s, NULL
    ) AS s
),

sale_of_kind AS MATERIALIZED (
    SELECT
        s.venue_id,
        s.left_out,
        count(*) AS sales,
        bit_xor(s.fingerprint) FILTER (WHERE s.left_out IS NULL) AS fingerprint,
        array_agg(s.customer_id) FILTER (WHERE s.is_due AND s.customer_id IS NOT NULL) AS due
    -- no WHERE: one that drops what is no sale lets the planner join by a nested loop
    FROM sale AS s
    GROUP BY s.venue_id, s.left_out
),

touched AS (
    SELECT
        k.venue_id,
        unnest(k.due) AS customer_id
    FROM sale_of_kind AS k
    UNION
    -- whatever has become of an order, it was written then
    SELECT
        o.venue_id,
        o.customer_id
    FROM source.orders AS o
    WHERE
        o.venue_id = any(%(venue_ids)s)
        AND o.tenant_id = %(tenant_id)s
        AND o.updated_at >= %(watermark)s
        AND o.customer_id IS NOT NULL
    UNION
    -- customers leave no trace that is sure: each is looked up
    SELECT
        old.venue_id,
        old.customer_id
    FROM public.customer_rfm_state AS old
    LEFT JOIN source.customers AS own
        ON old.customer_id = own.customer_id AND own.tenant_id = %(tenant_id)s
    LEFT JOIN source.customers AS everybodys
        ON old.customer_id = everybodys.customer_id AND everybodys.tenant_id IS NULL
    WHERE
        old.venue_id = any(%(venue_ids)s)
        AND old.tenant_id = %(tenant_id)s
        AND (
            old.known IS DISTINCT FROM coalesce(NOT own.deleted, NOT everybodys.deleted, FALSE)
            OR coalesce(own.erased, FALSE)
            OR coalesce(everybodys.erased, FALSE)
        )
)

SELECT
    v.venue_id,
    coalesce(t.customers, '{}')::text AS customers,
    coalesce(k.fingerprint, 0) AS fingerprint,
    coalesce(k.sales, 0)::bigint AS sales,
    coalesce(k.left_out, '{}') AS left_out,
    exists(
        SELECT FROM public.customer_segment_change AS c
        INNER JOIN erased AS e ON c.customer_id = e.customer_id
        WHERE c.venue_id = v.venue_id AND c.tenant_id = %(tenant_id)s
    ) AS remembers_erased
FROM unnest(%(venue_ids)s::uuid[]) AS v (venue_id)
LEFT JOIN (
    SELECT
        t.venue_id,
        array_agg(t.customer_id) AS customers
    FROM touched AS t
    GROUP BY t.venue_id
) AS t ON v.venue_id = t.venue_id
LEFT JOIN (
    SELECT
        k.venue_id,
        bit_xor(k.fingerprint) AS fingerprint,
        -- as a full build counts them
        sum(k.sales)
        FILTER (WHERE coalesce(k.left_out, '') NOT IN ('no sale', 'before the look-back')) AS sales,
        jsonb_object_agg(k.left_out, k.sales)
        FILTER (WHERE k.left_out NOT IN ('no sale', 'before the look-back', 'erased')) AS left_out
    FROM sale_of_kind AS k
    GROUP BY k.venue_id
) AS k ON v.venue_id = k.venue_id;
