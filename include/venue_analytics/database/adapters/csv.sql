-- Adapter `csv`: the tables that `load-orders` fills, and the source contract over them.
-- All rows belong to one fixed tenant; row-level security applies nevertheless.
-- It may run any number of times, under any login: it creates what is missing, owned by
-- analytics_owner, and drops no table.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'csv') THEN
        CREATE SCHEMA csv AUTHORIZATION analytics_owner;
    END IF;
END
$$;
SET LOCAL ROLE analytics_owner;


-- One row: a venue of a file, with the time zone and the currency of its purchases.
CREATE TABLE IF NOT EXISTS csv.venues (
    venue_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    venue_name text NOT NULL,
    timezone text NOT NULL,
    currency text
);

-- One row: a customer; external_id is the key in the files.
CREATE TABLE IF NOT EXISTS csv.customers (
    customer_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    external_id text NOT NULL
);

-- One row: a row of a file. file_line is the line where it begins; the file's first line is 1.
CREATE TABLE IF NOT EXISTS csv.orders (
    order_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    venue_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    ordered_at timestamptz NOT NULL,
    amount numeric(12, 2) NOT NULL CHECK (amount >= 0),
    status text NOT NULL CHECK (status IN ('paid', 'pending', 'cancelled', 'refunded')),
    currency text NOT NULL,
    tickets integer CHECK (tickets >= 0),
    dataset text NOT NULL,
    file_line bigint NOT NULL
);

-- Covers the aggregation of a venue by customer, which then is an index-only scan.
CREATE INDEX IF NOT EXISTS orders_by_venue_and_customer ON csv.orders (venue_id, customer_id)
INCLUDE (tenant_id, order_id, status, currency, ordered_at, amount);

ALTER TABLE csv.venues ENABLE ROW LEVEL SECURITY;
ALTER TABLE csv.venues FORCE ROW LEVEL SECURITY;
ALTER TABLE csv.customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE csv.customers FORCE ROW LEVEL SECURITY;
ALTER TABLE csv.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE csv.orders FORCE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS own_tenant ON csv.venues;
CREATE POLICY own_tenant ON csv.venues
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
DROP POLICY IF EXISTS list_venues ON csv.venues;
CREATE POLICY list_venues ON csv.venues FOR SELECT TO analytics_lister USING (true);
DROP POLICY IF EXISTS own_tenant ON csv.customers;
CREATE POLICY own_tenant ON csv.customers
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
DROP POLICY IF EXISTS own_tenant ON csv.orders;
CREATE POLICY own_tenant ON csv.orders
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);

CREATE OR REPLACE VIEW source.venues WITH (security_invoker = true) AS
SELECT
    v.venue_id,
    v.tenant_id,
    v.venue_name AS name, -- noqa: RF04
    v.timezone,
    v.currency,
    null::integer AS capacity,
    true AS open
FROM csv.venues AS v;

CREATE OR REPLACE VIEW source.events WITH (security_invoker = true) AS
SELECT
    null::uuid AS event_id,
    null::uuid AS venue_id,
    null::uuid AS tenant_id,
    null::text AS name, -- noqa: RF04
    null::text AS category,
    null::timestamptz AS starts_at,
    null::timestamptz AS ends_at,
    null::integer AS capacity,
    null::text AS status
WHERE false;

CREATE OR REPLACE VIEW source.orders WITH (security_invoker = true) AS
SELECT
    o.order_id,
    o.tenant_id,
    o.venue_id,
    null::uuid AS event_id,
    o.customer_id,
    o.ordered_at,
    null::timestamptz AS updated_at,
    o.status,
    o.status IN ('paid', 'refunded') AS is_sale,
    -- a file does not say when or how much was refunded: taken as all of it, at the purchase's time
    CASE WHEN o.status = 'refunded' THEN o.ordered_at END AS refunded_at,
    source.cents(o.amount) AS amount_cents,
    false AS is_rounded,
    o.currency,
    o.tickets,
    null::text AS channel
FROM csv.orders AS o;

CREATE OR REPLACE VIEW source.refunds WITH (security_invoker = true) AS
SELECT
    null::uuid AS refund_id,
    null::uuid AS order_id,
    null::uuid AS tenant_id,
    null::uuid AS venue_id,
    null::timestamptz AS refunded_at,
    null::timestamptz AS updated_at,
    null::bigint AS amount_cents
WHERE false;

CREATE OR REPLACE VIEW source.scans WITH (security_invoker = true) AS
SELECT
    null::uuid AS scan_id,
    null::uuid AS event_id,
    null::uuid AS tenant_id,
    null::uuid AS venue_id,
    null::uuid AS ticket_id,
    null::timestamptz AS scanned_at,
    null::text AS result
WHERE false;

CREATE OR REPLACE VIEW source.customers WITH (security_invoker = true) AS
SELECT
    c.customer_id,
    c.tenant_id,
    c.external_id,
    false AS deleted,
    false AS erased,
    null::timestamptz AS updated_at
FROM csv.customers AS c;

CREATE OR REPLACE VIEW source.freshness WITH (security_invoker = true) AS
SELECT DISTINCT
    v.tenant_id,
    now() AS loaded_through
FROM csv.venues AS v;

GRANT USAGE ON SCHEMA csv TO analytics_jobs, analytics_lister;
GRANT SELECT, INSERT, UPDATE, DELETE ON csv.venues, csv.customers, csv.orders TO analytics_jobs;
GRANT SELECT ON csv.venues TO analytics_lister;
GRANT SELECT ON
source.venues, source.events, source.orders, source.refunds, source.scans, source.customers,
source.freshness TO analytics_jobs;
GRANT SELECT ON source.venues TO analytics_lister;

RESET ROLE;
