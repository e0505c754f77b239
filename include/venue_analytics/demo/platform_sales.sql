-- Inserts customers, orders, items, refunds, scans, erasure requests and the events' capacity.
-- Run in the transaction of platform_programme.sql: it uses that script's functions and temporary
-- tables. Parameter: customers (their number).

-- One row per customer with their habits: the number of orders, the range of their days before
-- `until`, and the preferred programmes in order. Of 100 customers 10 are regular, 28 occasional,
-- 14 lapsed, 8 new, and 40 came once; every 50th also buys from the other tenant. Programme 12
-- (Signal Hill Cellar) has only customer 1, a regular.
CREATE TEMPORARY TABLE buyers ON COMMIT DROP AS
SELECT
    b.number,
    first_choice.tenant_id,
    pg_temp.make_id('user', b.number) AS user_id,
    CASE WHEN b.number = 1 THEN 12 ELSE first_choice.number END AS first_choice,
    second_choice.number AS second_choice,
    third_choice.number AS third_choice,
    CASE
        WHEN b.habit < 10 THEN 8 + pg_temp.draw('regular orders', b.number, 16)
        WHEN b.habit < 38 THEN 2 + pg_temp.draw('occasional orders', b.number, 5)
        WHEN b.habit < 52 THEN 2 + pg_temp.draw('lapsed orders', b.number, 9)
        WHEN b.habit < 60 THEN 1 + pg_temp.draw('new orders', b.number, 2)
        ELSE 1
    END AS orders,
    CASE
        WHEN b.habit < 10 THEN 250 + pg_temp.draw('regular since', b.number, 660)
        WHEN b.habit < 38 THEN b.occasional_since
        WHEN b.habit < 52 THEN b.lapsed_at + pg_temp.draw('lapsed since', b.number, 370)
        WHEN b.habit < 60 THEN 40
        ELSE 911
    END AS first_day,
    CASE
        WHEN b.habit < 10 THEN 0
        WHEN b.habit < 38 THEN pg_temp.draw('occasional until', b.number, b.occasional_since)
        WHEN b.habit < 52 THEN b.lapsed_at
        ELSE 0
    END AS last_day
FROM (
    SELECT
        number,
        CASE
            WHEN number > 1 AND pg_temp.draw('tenant', number, 100) < 55 THEN 'N' ELSE 'C'
        END AS tenant,
        CASE WHEN number = 1 THEN 0 ELSE pg_temp.draw('habit', number, 100) END AS habit,
        60 + pg_temp.draw('occasional since', number, 850) AS occasional_since,
        185 + pg_temp.draw('lapsed until', number, 350) AS lapsed_at
    FROM generate_series(1, %(customers)s::bigint) AS number
) AS b
INNER JOIN sales_shares AS first_choice
    ON
        b.tenant = first_choice.tenant
        AND pg_temp.draw('first choice', b.number, 100) = first_choice.percent
INNER JOIN sales_shares AS second_choice
    ON
        CASE
            WHEN pg_temp.draw('buys elsewhere', b.number, 50) > 0 THEN b.tenant
            WHEN b.tenant = 'N' THEN 'C'
            ELSE 'N'
        END = second_choice.tenant
        AND pg_temp.draw('second choice', b.number, 100) = second_choice.percent
INNER JOIN sales_shares AS third_choice
    ON
        b.tenant = third_choice.tenant
        AND pg_temp.draw('third choice', b.number, 100) = third_choice.percent;

ANALYZE programmes, shows, buyers;

-- One row per order with all that its items, refunds and scans need.
--   Time: the days of orders are scaled so that they end with the programme's sales.
--   Event: 1 to 49 days ahead, or the next one after. Every second event is a hit, which takes a
--   third of its neighbour's orders.
--   Customer: 5 percent of the orders are by guests, 0.4 percent by unknown customers.
--   Faults: for each of no amount, negative amount and no currency, the first orders of five
--   consecutive customers have it.
CREATE TEMPORARY TABLE purchases ON COMMIT DROP AS
WITH chosen AS (
    SELECT
        b.number * 32 + nth AS number,
        b.user_id,
        CASE
            WHEN pg_temp.draw('choice', b.number * 32 + nth, 100) < 78 THEN b.first_choice
            WHEN pg_temp.draw('choice', b.number * 32 + nth, 100) < 93 THEN b.second_choice
            ELSE b.third_choice
        END AS programme_number,
        b.last_day + pg_temp.draw(
            'day of order', b.number * 32 + nth, b.first_day - b.last_day + 1
        ) AS order_day,
        CASE
            WHEN nth > 1 THEN NULL
            WHEN b.number BETWEEN 21 AND 25 THEN 'no amount'
            WHEN b.number BETWEEN 31 AND 35 THEN 'negative amount'
            WHEN b.number BETWEEN 41 AND 45 THEN 'no currency'
        END AS fault
    FROM buyers AS b
    CROSS JOIN generate_series(1, b.orders) AS nth
),

dated AS (
    SELECT
        c.number,
        c.user_id,
        c.programme_number,
        c.fault,
        p.currency,
        p.slots,
        coalesce(p.timezone, 'UTC') AS timezone,
        (p.last_sale + c.order_day * (912 - p.last_sale) / 912)::integer AS order_day,
        make_interval(
            hours => (ARRAY[
                0, 1, 6, 7, 8, 8, 9, 9, 9, 10, 10, 10, 10, 11, 11, 11, 12, 12, 12, 12, 13,
                13, 14, 14, 15, 15, 16, 16, 17, 17, 17, 18, 18, 18, 19, 19, 19, 19, 20, 20,
                20, 20, 21, 21, 21, 22, 22, 23
            ])[1 + pg_temp.draw('hour of order', c.number, 48)],
            secs => pg_temp.draw('second of order', c.number, 3600)
        ) AS order_time,
        1 + pg_temp.draw('lead', c.number, 50) * pg_temp.draw('haste', c.number, 50) / 50
            AS lead_days
    FROM chosen AS c
    INNER JOIN programmes AS p ON c.programme_number = p.number
),

-- MATERIALIZED, so that the planner does not compute an instant again at each reference.
placed AS MATERIALIZED (
    SELECT
        d.*,
        ((pg_temp.load_until() AT TIME ZONE d.timezone)::date - d.order_day + d.order_time)
        AT TIME ZONE d.timezone AS placed_at,
        1 + d.slots * (
            1000 * (912 - d.order_day + d.lead_days) + pg_temp.draw('lead part', d.number, 1000)
        ) / 1032000 AS next_slot,
        pg_temp.draw('hit', d.number, 3) = 2 AS is_for_a_hit,
        CASE
            WHEN d.programme_number = 12 THEN 999 ELSE pg_temp.draw('holder', d.number, 1000)
        END AS holder,
        pg_temp.draw('fate', d.number, 1000) AS fate,
        pg_temp.draw('items', d.number, 100) AS items
    FROM dated AS d
)

SELECT
    o.number,
    o.fault,
    s.event_id,
    s.tenant_id,
    s.starts_at,
    s.number AS show_number,
    pg_temp.make_id('order', o.number) AS order_id,
    CASE
        WHEN o.holder < 50 THEN NULL
        WHEN o.holder < 54 THEN pg_temp.make_id('stranger', o.number / 64)
        ELSE o.user_id
    END AS user_id,
    CASE
        WHEN o.fault IS NOT NULL THEN 'COMPLETED'
        WHEN o.fate < 30 THEN 'REFUNDED'
        WHEN o.fate < 38 THEN 'REFUND_INITIATED'
        WHEN o.fate < 88 THEN 'CANCELLED'
        WHEN o.fate < 128 THEN 'EXPIRED'
        WHEN o.fate < 153 THEN 'PAYMENT_FAILED'
        WHEN o.fate < 158 THEN 'PENDING'
        WHEN o.fate < 163 THEN 'RESERVED'
        WHEN s.is_cancelled THEN 'REFUNDED'
        WHEN o.fate < 300 THEN 'PAID'
        WHEN o.fate < 400 OR s.starts_at >= pg_temp.load_until() THEN 'CONFIRMED'
        ELSE 'COMPLETED'
    END AS status,
    CASE
        WHEN o.fault = 'no currency' THEN NULL
        WHEN pg_temp.draw('other currency', o.number, 1000) >= 5 THEN o.currency
        WHEN o.currency = 'EUR' THEN 'CAD'
        ELSE 'EUR'
    END AS currency,
    CASE
        WHEN o.placed_at < pg_temp.load_until() THEN o.placed_at
        ELSE o.placed_at - interval '25 hours'
    END AS created_at,
    CASE
        WHEN pg_temp.draw('free order', o.number, 250) = 0 THEN 0 ELSE s.price_cents
    END AS price_cents,
    pg_temp.draw('first type', o.number, 4) AS first_type,
    (ARRAY[2, 2, 2, 2, 1, 1, 1, 3, 2, 4])[
        1 + pg_temp.draw('first quantity', o.number, 10)
    ] AS quantity_1,
    CASE
        WHEN o.items < 75 THEN 0 ELSE 1 + pg_temp.draw('second quantity', o.number, 2)::integer
    END AS quantity_2,
    CASE
        WHEN o.items < 94 THEN 0 ELSE 1 + pg_temp.draw('third quantity', o.number, 2)::integer
    END AS quantity_3
FROM placed AS o
INNER JOIN shows AS s
    ON
        o.programme_number = s.programme_number
        AND CASE
            WHEN o.is_for_a_hit AND mod(o.next_slot, 2) = 0
                THEN least(o.next_slot + 1, o.slots - 1)
            ELSE o.next_slot
        END = s.slot;

-- Up to three kinds of ticket per order, each at its own price.
INSERT INTO order_items (
    id, tenant_id, order_id, ticket_type_id, quantity, unit_price_cents, total_price_cents
)
SELECT
    pg_temp.make_id('item', i.number) AS id,
    i.tenant_id,
    i.order_id,
    pg_temp.make_id('ticket type', i.show_number * 4 + i.ticket_type) AS ticket_type_id,
    i.quantity,
    i.unit_price_cents,
    i.quantity * i.unit_price_cents AS total_price_cents
FROM (
    SELECT
        p.tenant_id,
        p.order_id,
        p.show_number,
        p.number * 4 + item.nth AS number,
        item.quantity,
        mod(p.first_type + item.nth, 4) AS ticket_type,
        p.price_cents * (ARRAY[100, 65, 150, 220])[1 + mod(p.first_type + item.nth, 4)] / 100
            AS unit_price_cents
    FROM purchases AS p
    CROSS JOIN
        unnest(ARRAY[p.quantity_1, p.quantity_2, p.quantity_3])
        WITH ORDINALITY AS item (quantity, nth)
    WHERE item.quantity > 0
) AS i;

-- An order is last updated within 15 minutes, or when its refund is requested.
INSERT INTO orders (
    id, tenant_id, user_id, event_id, status, total_cents, currency, ticket_quantity,
    created_at, updated_at
)
WITH totals AS (
    SELECT
        order_id,
        sum(total_price_cents)::bigint AS total_cents,
        sum(quantity) AS quantity
    FROM order_items
    GROUP BY order_id
)

SELECT
    p.order_id,
    p.tenant_id,
    p.user_id,
    p.event_id,
    p.status,
    CASE
        WHEN p.fault = 'no amount' THEN NULL
        WHEN p.fault = 'negative amount' THEN -i.total_cents
        ELSE i.total_cents
    END AS total_cents,
    p.currency,
    i.quantity,
    p.created_at,
    p.created_at + make_interval(
        secs => pg_temp.draw(
            'order touched',
            p.number,
            least(
                CASE WHEN p.status IN ('REFUNDED', 'REFUND_INITIATED') THEN 1728000 ELSE 900 END,
                pg_temp.seconds_since(p.created_at)
            )
        )
    ) AS updated_at
FROM purchases AS p
INNER JOIN totals AS i ON p.order_id = i.order_id;

-- Full refunds of the refunded orders, except that one in ten has no refund row. Of 1,000 other
-- sales 15 have a partial refund, 3 a failed one and 2 a pending one.
INSERT INTO order_refunds (
    id, tenant_id, order_id, refund_amount_cents, refund_status, created_at, updated_at
)
SELECT
    pg_temp.make_id('refund', r.number) AS id,
    r.tenant_id,
    r.order_id,
    r.amount_cents,
    r.status,
    r.asked_at,
    r.asked_at + make_interval(
        secs => pg_temp.draw(
            'refund settled',
            r.number,
            least(172800, pg_temp.seconds_since(r.asked_at))
        )
    ) AS updated_at
FROM (
    SELECT
        p.number,
        o.tenant_id,
        o.id AS order_id,
        CASE
            WHEN o.status IN ('REFUNDED', 'REFUND_INITIATED') THEN o.total_cents
            ELSE o.total_cents * (30 + pg_temp.draw('refund part', p.number, 41)) / 100
        END AS amount_cents,
        CASE
            WHEN o.status = 'REFUNDED' THEN 'COMPLETED'
            WHEN o.status = 'REFUND_INITIATED' THEN 'PENDING'
            WHEN pg_temp.draw('refund', p.number, 1000) < 15 THEN 'COMPLETED'
            WHEN pg_temp.draw('refund', p.number, 1000) < 18 THEN 'FAILED'
            ELSE 'PENDING'
        END AS status,
        CASE
            WHEN o.status IN ('REFUNDED', 'REFUND_INITIATED') THEN o.updated_at
            ELSE o.updated_at + make_interval(
                secs => pg_temp.draw(
                    'refund asked',
                    p.number,
                    least(1728000, pg_temp.seconds_since(o.updated_at))
                )
            )
        END AS asked_at
    FROM purchases AS p
    INNER JOIN orders AS o ON p.order_id = o.id
    WHERE
        p.fault IS NULL
        AND o.total_cents > 0
        AND CASE
            WHEN p.status = 'REFUNDED' THEN pg_temp.draw('refund kept', p.number, 10) > 0
            WHEN p.status = 'REFUND_INITIATED' THEN TRUE
            WHEN p.status IN ('CONFIRMED', 'COMPLETED', 'PAID')
                THEN pg_temp.draw('refund', p.number, 1000) < 20
            ELSE FALSE
        END
) AS r;

-- Nine in ten tickets are scanned, from an hour before the show until 15 minutes into it. Some are
-- scanned again a minute later, some are invalid.
INSERT INTO ticket_scans (id, tenant_id, event_id, ticket_id, scanned_at, result)
SELECT
    pg_temp.make_id('scan', t.number * 2 + attempt) AS id,
    t.tenant_id,
    t.event_id,
    pg_temp.make_id('ticket', t.number) AS ticket_id,
    t.starts_at + make_interval(
        secs => pg_temp.draw('door', t.number, 4500) - 3600 + attempt * 60
    ) AS scanned_at,
    CASE
        WHEN attempt > 0 THEN 'DUPLICATE'
        WHEN pg_temp.draw('bad ticket', t.number, 1000) < 7 THEN 'INVALID'
        ELSE 'VALID'
    END AS result
FROM (
    SELECT
        p.tenant_id,
        p.event_id,
        p.starts_at,
        p.number * 16 + nth AS number
    FROM purchases AS p
    CROSS JOIN generate_series(1, p.quantity_1 + p.quantity_2 + p.quantity_3) AS nth
    WHERE
        p.status IN ('CONFIRMED', 'COMPLETED', 'PAID')
        AND p.starts_at < pg_temp.load_until() - interval '1 hour'
) AS t
CROSS JOIN
    generate_series(
        0, CASE WHEN pg_temp.draw('second scan', t.number, 1000) < 15 THEN 1 ELSE 0 END
    ) AS attempt
WHERE pg_temp.draw('attended', t.number, 10) < 9;

-- An account is created in the month before its first order; all orders of a deleted account are
-- from before its deletion.
INSERT INTO users (id, tenant_id, email, status, created_at, updated_at, deleted_at)
WITH active AS (
    SELECT
        user_id,
        min(created_at) AS first_order_at,
        max(created_at) AS last_order_at
    FROM orders
    GROUP BY user_id
),

accounts AS (
    SELECT
        b.number,
        b.user_id,
        b.tenant_id,
        coalesce(a.first_order_at, pg_temp.load_until() - interval '40 days') AS first_order_at,
        coalesce(a.last_order_at, pg_temp.load_until() - interval '40 days') AS last_order_at,
        b.number > 1 AND pg_temp.draw('account deleted', b.number, 1000) < 15 AS is_deleted
    FROM buyers AS b
    LEFT JOIN active AS a ON b.user_id = a.user_id
),

closed AS (
    SELECT
        a.*,
        CASE
            WHEN a.is_deleted
                THEN a.last_order_at + make_interval(
                    secs => pg_temp.draw(
                        'deletion', a.number, pg_temp.seconds_since(a.last_order_at)
                    )
                )
        END AS deleted_at
    FROM accounts AS a
)

SELECT
    c.user_id,
    c.tenant_id,
    'customer-' || c.number || '@example.com' AS email,
    CASE WHEN c.is_deleted THEN 'DELETED' ELSE 'ACTIVE' END AS status,
    c.first_order_at - make_interval(secs => pg_temp.draw('account opened', c.number, 2592000))
        AS created_at,
    coalesce(c.deleted_at, c.first_order_at) AS updated_at,
    c.deleted_at
FROM closed AS c;

-- Up to 8 deleted customers have requested erasure; every other request is completed. So have up to
-- 4 others; one of their requests is pending, the rest are rejected.
INSERT INTO gdpr_deletion_requests (id, tenant_id, user_id, status, created_at, updated_at)
SELECT
    pg_temp.make_id('erasure', r.number) AS id,
    r.tenant_id,
    r.user_id,
    CASE
        WHEN r.is_deleted AND mod(r.nth, 2) = 1 THEN 'COMPLETED'
        WHEN r.is_deleted OR r.nth = 1 THEN 'PENDING'
        ELSE 'REJECTED'
    END AS status,
    r.user_updated_at + make_interval(secs => pg_temp.draw('asked', r.number, r.age_seconds / 2))
        AS created_at,
    r.user_updated_at + make_interval(
        secs => r.age_seconds / 2 + pg_temp.draw('answered', r.number, r.age_seconds / 2)
    ) AS updated_at
FROM (
    SELECT
        b.number,
        u.id AS user_id,
        u.tenant_id,
        u.updated_at AS user_updated_at,
        u.deleted_at IS NOT NULL AS is_deleted,
        pg_temp.seconds_since(u.updated_at) AS age_seconds,
        row_number() OVER (PARTITION BY u.deleted_at IS NOT NULL ORDER BY b.number) AS nth
    FROM users AS u
    INNER JOIN buyers AS b ON u.id = b.user_id
    WHERE u.updated_at < pg_temp.load_until() - interval '1 day' AND b.number > 1
) AS r
WHERE r.nth <= CASE WHEN r.is_deleted THEN 8 ELSE 4 END;

-- Each event's capacity is set so that it is between 45 and 100 percent sold.
INSERT INTO event_capacity (
    id, tenant_id, event_id, total_capacity, sold_count, created_at, updated_at
)
WITH sales AS (
    SELECT
        event_id,
        sum(quantity_1 + quantity_2 + quantity_3) AS sold,
        max(created_at) AS last_sale_at
    FROM purchases
    WHERE status IN ('CONFIRMED', 'COMPLETED', 'PAID', 'REFUND_INITIATED')
    GROUP BY event_id
)

SELECT
    pg_temp.make_id('capacity', s.number) AS id,
    s.tenant_id,
    s.event_id,
    CASE
        WHEN p.sold IS NULL THEN s.max_capacity / 2
        ELSE least(
            s.max_capacity,
            (p.sold * 100 / (45 + pg_temp.draw('fill', s.number, 56)) + 9) / 10 * 10
        )
    END AS total_capacity,
    coalesce(p.sold, 0) AS sold_count,
    e.created_at,
    coalesce(p.last_sale_at, e.updated_at) AS updated_at
FROM shows AS s
INNER JOIN events AS e ON s.event_id = e.id
LEFT JOIN sales AS p ON s.event_id = p.event_id;
