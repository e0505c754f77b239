-- Fills the platform's tables with two years of orders at venues of Zipf-distributed sizes, by
-- customers who buy at several venues of their tenant. Parameters: venues, tenants, pairs (customer
-- at a venue), orders, skew (of the venues' sizes; 0 means none), events (per venue), customers
-- (minimum per tenant), until. The same parameters produce the same rows.

SELECT setseed(0.5);

CREATE TEMP TABLE size_of_venue AS
SELECT
    v AS number,
    md5('venue ' || v)::uuid AS venue_id,
    v %% %(tenants)s AS tenant,
    md5('tenant ' || v %% %(tenants)s)::uuid AS tenant_id,
    greatest(
        1, round(%(pairs)s * (v ^ -%(skew)s::float8) / sum(v ^ -%(skew)s::float8) OVER ())
    )::integer AS pairs
FROM generate_series(1, %(venues)s) AS v;

INSERT INTO tenants SELECT DISTINCT tenant_id, 'Tenant ' || tenant FROM size_of_venue;

INSERT INTO venues
SELECT venue_id, tenant_id, 'Venue ' || number, 'UTC', 1000, 'ACTIVE', %(until)s, %(until)s, NULL
FROM size_of_venue;

-- 1.5 times as many as its largest venue has, at least the parameter
CREATE TEMP TABLE size_of_tenant AS
SELECT
    tenant, tenant_id,
    greatest((max(pairs) * 1.5)::integer + 2, %(customers)s) AS customers
FROM size_of_venue GROUP BY tenant, tenant_id;

INSERT INTO users
SELECT
    md5('user ' || t.tenant || ' ' || n)::uuid, t.tenant_id, n || '@example.com', 'ACTIVE',
    %(until)s - interval '800 days', %(until)s - interval '800 days', NULL
FROM size_of_tenant AS t CROSS JOIN LATERAL generate_series(0, t.customers - 1) AS n;

INSERT INTO events
SELECT
    md5('event ' || v.number || ' ' || n)::uuid, v.tenant_id, v.venue_id, 'Event ' || n, 'music',
    'PUBLISHED', %(until)s, %(until)s, NULL
FROM size_of_venue AS v CROSS JOIN generate_series(0, %(events)s - 1) AS n;

CREATE TEMP TABLE pair AS
SELECT
    v.number, v.tenant, v.tenant_id, v.pairs,
    md5('user ' || v.tenant || ' ' || (v.number * 7919 + n) %% t.customers)::uuid AS user_id,
    row_number() OVER () AS pair
FROM size_of_venue AS v
INNER JOIN size_of_tenant AS t ON v.tenant = t.tenant
CROSS JOIN LATERAL generate_series(1, v.pairs) AS n;

-- each pair buys once; the other orders go to random pairs, to some far more often
CREATE TEMP TABLE purchase AS
SELECT
    pair,
    md5('order ' || row_number() OVER ())::uuid AS order_id,
    730 * (1 - sqrt(random())) AS days_ago,
    random() AS which,
    (20 * floor(1 + 10 * random() * random()) + 100 * floor(90 * random() ^ 3)) * 25 AS cents
FROM (
    SELECT pair FROM pair
    UNION ALL
    SELECT 1 + floor(power(random(), 1.6) * (SELECT count(*) FROM pair))
    FROM generate_series(1, %(orders)s - (SELECT count(*) FROM pair))
) AS p;
CREATE INDEX ON pair (pair);
ANALYZE pair, purchase;

INSERT INTO orders
SELECT
    o.order_id, p.tenant_id, p.user_id,
    md5('event ' || p.number || ' ' || floor(o.which * %(events)s)::integer)::uuid,
    CASE WHEN o.which < 0.02 THEN 'REFUNDED' WHEN o.which < 0.05 THEN 'CANCELLED'
        ELSE 'COMPLETED' END,
    o.cents, NULL, 'EUR', 2,
    %(until)s - o.days_ago * interval '1 day', %(until)s - o.days_ago * interval '1 day'
FROM purchase AS o
INNER JOIN pair AS p ON o.pair = p.pair
ORDER BY o.days_ago DESC;

INSERT INTO order_refunds
SELECT
    md5('refund ' || o.order_id)::uuid, p.tenant_id, o.order_id,
    CASE WHEN o.which < 0.02 THEN o.cents ELSE o.cents / 2 END, 'COMPLETED',
    %(until)s - o.days_ago * interval '12 hours', %(until)s - o.days_ago * interval '12 hours'
FROM purchase AS o
INNER JOIN pair AS p ON o.pair = p.pair
WHERE o.which < 0.02 OR o.which > 0.99;
