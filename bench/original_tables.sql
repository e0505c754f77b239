-- The API's three original tables, as the audited service filled them: its columns, its unique keys
-- and its two indexes on calculated_at, plus an index on venue_id, which the API needs to read a
-- venue. The names are unqualified: the tables are created in the first schema of the search path.

CREATE TABLE customer_rfm_scores (
    customer_id uuid NOT NULL,
    venue_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    recency_score integer NOT NULL,
    frequency_score integer NOT NULL,
    monetary_score integer NOT NULL,
    total_score integer NOT NULL,
    days_since_last_purchase integer NOT NULL,
    total_purchases integer NOT NULL,
    total_spent numeric(12, 2) NOT NULL,
    average_order_value numeric(10, 2) NOT NULL,
    segment varchar(50) NOT NULL,
    churn_risk varchar(20) NOT NULL,
    calculated_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (customer_id, venue_id)
);
CREATE INDEX ON customer_rfm_scores (venue_id);
CREATE INDEX ON customer_rfm_scores (calculated_at);

CREATE TABLE customer_segments (
    venue_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    segment_name varchar(50) NOT NULL,
    customer_count integer NOT NULL,
    total_revenue numeric(12, 2) NOT NULL,
    avg_order_value numeric(10, 2) NOT NULL,
    avg_lifetime_value numeric(10, 2) NOT NULL,
    avg_purchase_frequency numeric(5, 2) NOT NULL,
    last_calculated_at timestamptz NOT NULL,
    UNIQUE (venue_id, segment_name)
);

CREATE TABLE customer_lifetime_value (
    customer_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    venue_id uuid,
    clv numeric(12, 2) NOT NULL,
    avg_order_value numeric(10, 2) NOT NULL,
    purchase_frequency numeric(8, 2) NOT NULL,
    customer_lifespan_days integer NOT NULL,
    total_purchases integer NOT NULL,
    total_revenue numeric(12, 2) NOT NULL,
    predicted_clv_12_months numeric(12, 2) NOT NULL,
    predicted_clv_24_months numeric(12, 2) NOT NULL,
    churn_probability numeric(5, 4) NOT NULL,
    calculated_at timestamptz NOT NULL,
    UNIQUE (customer_id)
);
CREATE INDEX ON customer_lifetime_value (calculated_at);
