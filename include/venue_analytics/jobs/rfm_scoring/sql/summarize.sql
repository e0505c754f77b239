-- One row a venue and segment: how many customers it has, and what they spent. Brings the summaries
-- to the scores: a row for each segment of the rules in force, empty ones too, and none of others.
WITH others AS (
    DELETE FROM public.customer_segments AS s
    WHERE
        s.venue_id = any(%(venue_ids)s::uuid[])
        AND s.tenant_id = %(tenant_id)s
        AND s.segment_name NOT IN (
            SELECT public.rfm_segment_name(code.segment)
            FROM unnest(%(codes)s::smallint[]) AS code (segment)
        )
),

figures AS (
    SELECT
        s.venue_id,
        s.segment,
        count(*) AS customers,
        sum(s.spent_cents) AS spent_cents,
        sum(s.purchases) AS purchases,
        sum(greatest(public.whole_days(s.first_purchase_at, %(as_of)s), 30)) AS days
    FROM public.customer_rfm_state AS s
    WHERE s.venue_id = any(%(venue_ids)s::uuid[]) AND s.tenant_id = %(tenant_id)s AND s.known
    GROUP BY s.venue_id, s.segment
),

summary AS MATERIALIZED (
    SELECT
        v.venue_id,
        public.rfm_segment_name(code.segment) AS segment_name,
        coalesce(f.customers, 0) AS customer_count,
        coalesce(round(f.spent_cents / 100, 2), 0) AS total_revenue,
        coalesce(round(f.spent_cents / (100 * f.purchases), 2), 0) AS avg_order_value,
        coalesce(round(f.spent_cents / (100 * f.customers), 2), 0) AS avg_lifetime_value,
        coalesce(round(f.purchases * 365.25 / f.days, 2), 0) AS avg_purchase_frequency
    FROM unnest(%(venue_ids)s::uuid[]) AS v (venue_id)
    CROSS JOIN unnest(%(codes)s::smallint[]) AS code (segment)
    LEFT JOIN figures AS f ON v.venue_id = f.venue_id AND code.segment = f.segment
),

written AS (
    INSERT INTO public.customer_segments (
        venue_id, tenant_id, segment_name, customer_count, total_revenue, avg_order_value,
        avg_lifetime_value, avg_purchase_frequency, last_calculated_at
    )
    SELECT
        s.venue_id,
        %(tenant_id)s,
        s.segment_name,
        s.customer_count,
        s.total_revenue,
        s.avg_order_value,
        s.avg_lifetime_value,
        s.avg_purchase_frequency,
        %(as_of)s
    FROM summary AS s
    ON CONFLICT (venue_id, segment_name) DO UPDATE
        SET (
            customer_count, total_revenue, avg_order_value, avg_lifetime_value,
            avg_purchase_frequency, last_calculated_at
        ) = (
            excluded.customer_count, excluded.total_revenue, excluded.avg_order_value,
            excluded.avg_lifetime_value, excluded.avg_purchase_frequency,
            excluded.last_calculated_at
        )
        WHERE
        (
            customer_segments.customer_count, customer_segments.total_revenue,
            customer_segments.avg_order_value, customer_segments.avg_lifetime_value,
            customer_segments.avg_purchase_frequency, customer_segments.last_calculated_at
        ) IS DISTINCT FROM (
            excluded.customer_count, excluded.total_revenue, excluded.avg_order_value,
            excluded.avg_lifetime_value, excluded.avg_purchase_frequency,
            excluded.last_calculated_at
        )
)

SELECT
    s.venue_id,
    s.segment_name,
    s.customer_count,
    s.total_revenue
FROM summary AS s;
