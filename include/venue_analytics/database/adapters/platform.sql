-- Adapter `platform`: the source contract over the audited ticketing platform's own tables.
-- Sales are a separate branch of source.orders, so that the planner can estimate their number and
-- skip the other branch in queries of sales.
-- Recommended indexes: orders (event_id, user_id) INCLUDE (id, tenant_id, status, currency,
-- created_at, updated_at, total_cents); events (venue_id). With several tenants also order_refunds
-- (tenant_id), CREATE STATISTICS (dependencies) ON venue_id, tenant_id FROM events, and the same
-- ON event_id, tenant_id FROM orders.

CREATE VIEW source.venues WITH (security_invoker) AS
SELECT
    v.id::uuid AS venue_id,
    v.tenant_id::uuid AS tenant_id,
    v.name::text AS name,
    v.timezone::text AS timezone,
    NULL::text AS currency,
    v.max_capacity::integer AS capacity,
    (
        v.deleted_at IS NULL
        AND upper(coalesce(v.status::text, 'ACTIVE')) NOT IN ('CLOSED', 'DELETED', 'ARCHIVED')
    ) AS open
FROM public.venues AS v;

-- An event with several shows starts with the first one and ends with the last one.
CREATE VIEW source.events WITH (security_invoker) AS
SELECT
    e.id::uuid AS event_id,
    e.venue_id::uuid AS venue_id,
    e.tenant_id::uuid AS tenant_id,
    e.name::text AS name,
    NULL::text AS category,
    shows.starts_at::timestamptz AS starts_at,
    shows.ends_at::timestamptz AS ends_at,
    seats.capacity::integer AS capacity,
    (CASE WHEN e.deleted_at IS NULL THEN e.status::text ELSE 'DELETED' END)::text AS status
FROM public.events AS e
LEFT JOIN LATERAL (
    SELECT
        min(s.starts_at) AS starts_at,
        max(s.ends_at) AS ends_at
    FROM public.event_schedules AS s
    WHERE s.event_id = e.id
) AS shows ON TRUE
LEFT JOIN LATERAL (
    SELECT sum(c.total_capacity) AS capacity
    FROM public.event_capacity AS c
    WHERE c.event_id = e.id
) AS seats ON TRUE;

CREATE VIEW source.orders WITH (security_invoker) AS
SELECT
    o.id::uuid AS order_id,
    o.tenant_id::uuid AS tenant_id,
    e.venue_id::uuid AS venue_id,
    o.event_id::uuid AS event_id,
    o.user_id::uuid AS customer_id,
    o.created_at::timestamptz AS ordered_at,
    o.updated_at::timestamptz AS updated_at,
    CASE WHEN o.status = 'REFUNDED' THEN 'refunded' ELSE 'paid' END AS status,
    TRUE AS is_sale,
    CASE WHEN o.status = 'REFUNDED' THEN coalesce(o.updated_at, o.created_at)::timestamptz END
        AS refunded_at,
    o.total_cents::bigint AS amount_cents,
    FALSE AS is_rounded,
    o.currency::text AS currency,
    o.ticket_quantity::integer AS tickets,
    NULL::text AS channel
FROM public.orders AS o
LEFT JOIN public.events AS e ON o.event_id = e.id
WHERE o.status IN ('CONFIRMED', 'COMPLETED', 'PAID', 'REFUND_INITIATED', 'REFUNDED')
UNION ALL
SELECT
    o.id::uuid,
    o.tenant_id::uuid,
    e.venue_id::uuid,
    o.event_id::uuid,
    o.user_id::uuid,
    o.created_at::timestamptz,
    o.updated_at::timestamptz,
    CASE WHEN o.status IN ('PENDING', 'RESERVED') THEN 'pending' ELSE 'cancelled' END,
    FALSE,
    NULL::timestamptz,
    o.total_cents::bigint,
    FALSE,
    o.currency::text,
    o.ticket_quantity::integer,
    NULL::text
FROM public.orders AS o
LEFT JOIN public.events AS e ON o.event_id = e.id
WHERE
    o.status IS NULL
    OR o.status NOT IN ('CONFIRMED', 'COMPLETED', 'PAID', 'REFUND_INITIATED', 'REFUNDED');

-- Only completed refunds.
CREATE VIEW source.refunds WITH (security_invoker) AS
SELECT
    r.id::uuid AS refund_id,
    r.order_id::uuid AS order_id,
    r.tenant_id::uuid AS tenant_id,
    e.venue_id::uuid AS venue_id,
    r.created_at::timestamptz AS refunded_at,
    r.updated_at::timestamptz AS updated_at,
    r.refund_amount_cents::bigint AS amount_cents
FROM public.order_refunds AS r
LEFT JOIN public.orders AS o ON r.order_id = o.id
LEFT JOIN public.events AS e ON o.event_id = e.id
WHERE r.refund_status = 'COMPLETED';

CREATE VIEW source.scans WITH (security_invoker) AS
SELECT
    s.id::uuid AS scan_id,
    s.event_id::uuid AS event_id,
    s.tenant_id::uuid AS tenant_id,
    e.venue_id::uuid AS venue_id,
    s.ticket_id::uuid AS ticket_id,
    s.scanned_at::timestamptz AS scanned_at,
    s.result::text AS result
FROM public.ticket_scans AS s
LEFT JOIN public.events AS e ON s.event_id = e.id;

-- A customer is erased from the moment of an erasure request, whatever its state, unless it was
-- rejected or cancelled, and even if the account itself no longer exists.
CREATE VIEW source.customers WITH (security_invoker) AS
SELECT
    u.id::uuid AS customer_id,
    u.tenant_id::uuid AS tenant_id,
    u.id::text AS external_id,
    (u.deleted_at IS NOT NULL OR upper(coalesce(u.status::text, '')) = 'DELETED') AS deleted,
    exists(
        SELECT FROM public.gdpr_deletion_requests AS g
        WHERE
            g.user_id = u.id
            AND upper(coalesce(g.status::text, 'PENDING')) NOT IN ('REJECTED', 'CANCELLED')
    ) AS erased,
    u.updated_at::timestamptz AS updated_at
FROM public.users AS u
UNION ALL
SELECT DISTINCT
    g.user_id::uuid,
    NULL::uuid,
    g.user_id::text,
    TRUE,
    TRUE,
    NULL::timestamptz
FROM public.gdpr_deletion_requests AS g
WHERE
    upper(coalesce(g.status::text, 'PENDING')) NOT IN ('REJECTED', 'CANCELLED')
    AND NOT EXISTS (SELECT FROM public.users AS u WHERE u.id = g.user_id);

-- The source is the same database, not a copy that lags: it is complete up to now.
CREATE VIEW source.freshness WITH (security_invoker) AS
SELECT DISTINCT
    v.tenant_id::uuid AS tenant_id,
    now() AS loaded_through
FROM public.venues AS v
WHERE v.tenant_id IS NOT NULL;

GRANT SELECT ON
public.venues, public.events, public.event_schedules, public.event_capacity, public.orders,
public.order_refunds, public.ticket_scans, public.users, public.gdpr_deletion_requests
TO analytics_jobs;

-- Only jobs.list_venues() sees the venues of every tenant.
GRANT SELECT ON public.venues TO analytics_lister;
DROP POLICY IF EXISTS analytics_lister ON public.venues;
CREATE POLICY analytics_lister ON public.venues FOR SELECT TO analytics_lister USING (TRUE);
