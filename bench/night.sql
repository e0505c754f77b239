-- Inserts a day of sales: 2 percent of the pairs buy, and about one in 31 of these orders is refunded.
-- The same orders and day produce the same rows: hashes replace random(), whose values would depend
-- on the plan. Parameters: since (the start of the day); day (its number).

CREATE TEMP TABLE bought ON COMMIT DROP AS
SELECT
    b.*,
    %(since)s + (b.chance %% 86400) * interval '1 second' AS at
FROM (
    SELECT DISTINCT ON (o.user_id, e.venue_id)
        o.user_id, o.event_id, o.tenant_id, o.total_cents,
        md5('order of day ' || %(day)s || o.id)::uuid AS id,
        abs(hashtext('chance of day ' || %(day)s || o.id)::bigint) AS chance
    FROM orders AS o
    INNER JOIN events AS e ON o.event_id = e.id
    WHERE hashtext(o.user_id::text || e.venue_id || %(day)s) %% 50 = 0
    ORDER BY o.user_id, e.venue_id, o.id
) AS b;

INSERT INTO orders
SELECT id, tenant_id, user_id, event_id, 'COMPLETED', total_cents, NULL, 'EUR', 1, at, at
FROM bought ORDER BY at, id;

INSERT INTO order_refunds
SELECT md5('refund ' || id)::uuid, tenant_id, id, total_cents, 'COMPLETED', at, at
FROM bought WHERE chance %% 31 = 0;
