-- No rows: scores all customers of all venues by the default rules, and fills the three original
-- tables, in one statement. The placeholder in braces is replaced by the text of customers.sql.
WITH scored AS MATERIALIZED (
    SELECT
        s.*,
        recency_score + frequency_score + monetary_score AS total_score
    FROM (
        SELECT
            r.*,
            CASE
                WHEN days <= 30 THEN 5 WHEN days <= 60 THEN 4 WHEN days <= 90 THEN 3
                WHEN days <= 180 THEN 2 ELSE 1
            END AS recency_score,
            CASE
                WHEN purchases >= 10 THEN 5 WHEN purchases >= 7 THEN 4 WHEN purchases >= 4 THEN 3
                WHEN purchases >= 2 THEN 2 ELSE 1
            END AS frequency_score,
            CASE
                WHEN spent_less * 5 >= population * 4 THEN 5
                WHEN spent_less * 5 >= population * 3 THEN 4
                WHEN spent_less * 5 >= population * 2 THEN 3
                WHEN spent_less * 5 >= population THEN 2
                ELSE 1
            END AS monetary_score
        FROM (
            SELECT
                c.*,
                floor(extract(EPOCH FROM %(as_of)s - last_at) / 86400)::integer AS days,
                rank() OVER (PARTITION BY venue_id ORDER BY spent_cents) - 1 AS spent_less,
                count(*) OVER (PARTITION BY venue_id) AS population
            FROM ({customers}) AS c
        ) AS r
        OFFSET 0
    ) AS s
),

named AS MATERIALIZED (
    SELECT
        s.*,
        CASE
            WHEN total_score >= 12 THEN 'VIP' WHEN total_score >= 8 THEN 'Regular'
            WHEN total_score >= 5 AND days <= 180 THEN 'At-Risk' ELSE 'Lost'
        END AS segment,
        CASE
            WHEN days > 180 AND purchases >= 3 THEN 'high'
            WHEN days > 90 AND purchases >= 2 THEN 'medium'
            ELSE 'low'
        END AS churn_risk
    FROM scored AS s
),

scores AS (
    INSERT INTO customer_rfm_scores
    SELECT
        customer_id, venue_id, tenant_id, recency_score, frequency_score, monetary_score,
        total_score, days, purchases, spent_cents / 100.0, spent_cents / (100.0 * purchases),
        segment, churn_risk, %(as_of)s, %(as_of)s, %(as_of)s
    FROM named
),

segments AS (
    INSERT INTO customer_segments
    SELECT
        v.venue_id,
        v.tenant_id,
        k.segment,
        coalesce(f.customers, 0),
        coalesce(f.spent_cents / 100, 0),
        coalesce(f.spent_cents / (100 * f.purchases), 0),
        coalesce(f.spent_cents / (100 * f.customers), 0),
        coalesce(f.purchases * 365.25 / f.days, 0),
        %(as_of)s
    FROM (SELECT DISTINCT venue_id, tenant_id FROM named) AS v
    CROSS JOIN unnest(ARRAY['VIP', 'Regular', 'At-Risk', 'Lost']) AS k (segment)
    LEFT JOIN (
        SELECT
            venue_id,
            segment,
            count(*) AS customers,
            sum(spent_cents) AS spent_cents,
            sum(purchases) AS purchases,
            sum(greatest(floor(extract(EPOCH FROM %(as_of)s - first_at) / 86400), 30)) AS days
        FROM named
        GROUP BY venue_id, segment
    ) AS f ON v.venue_id = f.venue_id AND k.segment = f.segment
)

INSERT INTO customer_lifetime_value
SELECT
    customer_id, tenant_id, NULL, spent_cents / 100.0, spent_cents / (100.0 * purchases),
    purchases * 365.25 / greatest(lifespan, 30), lifespan, purchases, spent_cents / 100.0,
    spent_cents * 365.25 * (1 - churn) / (100 * greatest(lifespan, 30)),
    spent_cents * 365.25 * (1 - churn) * (2 - churn) / (100 * greatest(lifespan, 30)),
    churn, %(as_of)s
FROM (
    SELECT
        customer_id,
        tenant_id,
        sum(spent_cents)::bigint AS spent_cents,
        sum(purchases) AS purchases,
        greatest(floor(extract(EPOCH FROM %(as_of)s - min(first_at)) / 86400)::integer, 1)
            AS lifespan,
        CASE
            WHEN min(days) <= 60 THEN 0.1 WHEN min(days) <= 90 THEN 0.2
            WHEN min(days) <= 180 THEN 0.4 ELSE 0.7
        END AS churn
    FROM named
    GROUP BY customer_id, tenant_id
) AS c
