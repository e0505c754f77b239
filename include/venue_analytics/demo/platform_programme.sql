-- Inserts tenants, venues, events and their schedules. Every value derives from a hash of the seed
-- and a row's number, never from a random number or a clock. Times are in days from the first day
-- of sales, 912 days before `until`, to the last event, 120 days after it.
-- Parameters: seed; until (every row was created before it); customers (their number); northlight,
-- copperline (the tenants' ids).

-- Returns the parameter `until`.
CREATE FUNCTION pg_temp.load_until() RETURNS timestamptz
LANGUAGE sql IMMUTABLE
AS $$ SELECT %(until)s $$;

-- Returns the seconds from an instant to load_until().
CREATE FUNCTION pg_temp.seconds_since(instant timestamptz) RETURNS bigint
LANGUAGE sql STABLE
AS $$ SELECT extract(EPOCH FROM pg_temp.load_until() - instant)::bigint $$;

-- Returns an integer in [0, sides), a hash of seed, purpose and number.
CREATE FUNCTION pg_temp.draw(purpose text, number bigint, sides bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE
AS $$
    SELECT mod(
        hashint8extended(number, hashtextextended(purpose, %(seed)s)) & 9223372036854775807, sides
    )
$$;

-- Returns the id of a row by its kind and number.
CREATE FUNCTION pg_temp.make_id(kind text, number bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE
AS $$
    SELECT md5(kind || ':' || number::text || ':' || (%(seed)s)::text)::uuid
$$;

-- One row per programme of a tenant at a venue. `share` is its percentage of the tenant's sales.
-- `slots` is the number of equal periods with one event each, high enough that no event sells more
-- tickets than the venue's capacity. First and last event are in days before `until`.
CREATE TEMPORARY TABLE programmes ON COMMIT DROP AS
SELECT
    p.*,
    md5('venue:' || p.venue_number)::uuid AS venue_id,
    CASE p.tenant WHEN 'N' THEN %(northlight)s ELSE %(copperline)s END AS tenant_id,
    greatest(45, %(customers)s * p.share / 5 / p.max_capacity)::bigint AS slots
FROM (
    VALUES
    (1, 1, 'N', 'Kulturhaus Lindenhof', 'Europe/Berlin', 'EUR', 900, 26, 3200, 912, -120, 0),
    (2, 2, 'N', 'Spreebogen Arena', 'Europe/Berlin', 'EUR', 4800, 30, 5800, 912, -120, 0),
    (3, 3, 'N', 'Teatro da Glória', 'Europe/Lisbon', 'EUR', 620, 20, 2600, 912, -120, 0),
    (4, 4, 'N', 'Café Größenwahn', 'Europe/Berlin', 'EUR', 140, 8, 1600, 912, -120, 0),
    (5, 5, 'N', 'The Velvet Otter', 'America/Toronto', 'CAD', 380, 12, 2900, 912, -120, 0),
    (6, 6, 'N', 'Quayside Bandstand', 'Europe/Lisbon', 'EUR', 2000, 4, 1900, 912, -120, 0),
    (7, 6, 'C', 'Quayside Bandstand', 'Europe/Lisbon', 'EUR', 2000, 3, 1900, 912, -120, 0),
    (8, 7, 'C', 'Harbourlight Theatre', 'America/St_Johns', 'CAD', 740, 25, 4100, 912, -120, 0),
    (9, 8, 'C', 'Citadel Works', 'America/Halifax', 'CAD', 1500, 28, 3600, 912, -120, 0),
    (10, 9, 'C', 'Ironbridge Arena', 'America/Toronto', 'CAD', 6200, 34, 7400, 912, -120, 0),
    (11, 10, 'C', 'Old Mill Playhouse', NULL, 'CAD', 450, 10, 2700, 912, 240, 365),
    (12, 11, 'C', 'Signal Hill Cellar', 'America/St_Johns', 'CAD', 110, 0, 1800, 912, -120, 0),
    (13, 12, 'C', 'Paper Crane Studio', 'America/Halifax', 'CAD', 220, 0, 2200, 0, -120, 0)
) AS p (
    number, venue_number, tenant, venue_name, timezone, currency, max_capacity, share,
    price_cents, first_event, last_event, last_sale
);

-- One row per tenant and percent of its sales: the programme that this percent belongs to.
CREATE TEMPORARY TABLE sales_shares ON COMMIT DROP AS
SELECT
    p.tenant,
    p.tenant_id,
    p.number,
    row_number() OVER (PARTITION BY p.tenant ORDER BY p.number, percent) - 1 AS percent
FROM programmes AS p
CROSS JOIN generate_series(1, p.share) AS percent;

INSERT INTO tenants (id, name)
VALUES (%(northlight)s, 'Northlight Live'), (%(copperline)s, 'Copperline Stages');

-- The bandstand has programmes of both tenants, so it belongs to no tenant.
INSERT INTO venues (
    id, tenant_id, name, timezone, max_capacity, status, created_at, updated_at
)
SELECT
    p.venue_id,
    CASE WHEN count(*) = 1 THEN min(p.tenant_id::text)::uuid END AS tenant_id,
    p.venue_name,
    p.timezone,
    p.max_capacity,
    CASE WHEN p.last_event > 0 THEN 'CLOSED' ELSE 'ACTIVE' END AS status,
    pg_temp.load_until() - make_interval(days => p.first_event + 200) AS created_at,
    pg_temp.load_until() - make_interval(days => greatest(p.last_event, 150)) AS updated_at
FROM programmes AS p
GROUP BY p.venue_id, p.venue_name, p.timezone, p.max_capacity, p.first_event, p.last_event;

-- One row per event of a programme; its id derives from `number`, `slot` is its place in the
-- programme.
CREATE TEMPORARY TABLE shows ON COMMIT DROP AS
SELECT
    s.*,
    pg_temp.make_id('event', s.number) AS event_id,
    (s.event_day + s.opening) AT TIME ZONE s.timezone AS starts_at
FROM (
    SELECT
        p.number AS programme_number,
        p.venue_id,
        p.tenant_id,
        p.max_capacity,
        p.first_event,
        p.last_event,
        coalesce(p.timezone, 'UTC') AS timezone,
        slot,
        p.number * 10000000 + slot AS number,
        p.price_cents * (80 + pg_temp.draw('show price', p.number * 10000000 + slot, 61))
        / 5000 * 50 AS price_cents,
        pg_temp.draw('show cancelled', p.number * 10000000 + slot, 100) < 2 AS is_cancelled,
        pg_temp.load_until()::date - 912 + (
            (slot * 1032 + pg_temp.draw('show day', p.number * 10000000 + slot, 1032)) / p.slots
        )::integer AS event_day,
        (ARRAY['19:00', '19:30', '20:00', '20:00', '20:30', '15:00'])[
            1 + pg_temp.draw('show opening', p.number * 10000000 + slot, 6)
        ]::time AS opening
    FROM programmes AS p
    CROSS JOIN generate_series(0, p.slots - 1) AS slot
) AS s
WHERE
    s.event_day >= pg_temp.load_until()::date - s.first_event
    AND s.event_day < pg_temp.load_until()::date - s.last_event;

-- An event is announced about 133 to 163 days ahead: before its first order, and before `until`.
INSERT INTO events (
    id, tenant_id, venue_id, name, category, status, created_at, updated_at
)
SELECT
    e.event_id,
    e.tenant_id,
    e.venue_id,
    e.adjective || ' ' || e.act[1] AS name,
    e.act[2] AS category,
    e.status,
    e.announced_at,
    e.announced_at + make_interval(secs => pg_temp.draw('event edited', e.number, 259200))
        AS updated_at
FROM (
    SELECT
        s.*,
        (ARRAY[
            'Midnight', 'Paper', 'Electric', 'Northern', 'Velvet', 'Hollow', 'Golden', 'Restless',
            'Silver', 'Wandering', 'Quiet', 'Crimson', 'Second', 'Open', 'Distant', 'Little'
        ])[1 + pg_temp.draw('event adjective', s.number, 16)] AS adjective,
        string_to_array((ARRAY[
            'Orchestra:concert', 'Quartet:concert', 'Choir:concert', 'Parade:concert',
            'Garden:theatre', 'Letters:theatre', 'Kingdom:theatre', 'Comedy Hour:comedy',
            'Laughs:comedy', 'Steps:dance', 'Circus:family', 'Fables:family', 'Conversations:talk'
        ])[1 + pg_temp.draw('event act', s.number, 13)], ':') AS act,
        CASE
            WHEN s.is_cancelled THEN 'CANCELLED'
            WHEN s.starts_at + interval '3 hours' < pg_temp.load_until() THEN 'COMPLETED'
            ELSE 'PUBLISHED'
        END AS status,
        s.starts_at - make_interval(
            days => 133, secs => pg_temp.draw('event announced', s.number, 2592000)
        ) AS announced_at
    FROM shows AS s
) AS e;

INSERT INTO event_schedules (
    id, tenant_id, event_id, starts_at, ends_at, timezone, created_at, updated_at
)
SELECT
    pg_temp.make_id('schedule', s.number) AS id,
    s.tenant_id,
    s.event_id,
    s.starts_at,
    s.starts_at + make_interval(mins => 75 + 15 * pg_temp.draw('length', s.number, 7)::integer)
        AS ends_at,
    s.timezone,
    e.created_at,
    e.updated_at
FROM shows AS s
INNER JOIN events AS e ON s.event_id = e.id;
