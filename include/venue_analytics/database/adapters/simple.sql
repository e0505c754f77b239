-- Adapter `simple`: the source contract over three simple tables,
--   orders (id, tenant_id, user_id, venue_id, status, total_amount numeric, created_at),
--   users (id), venues (id, tenant_id, name).
-- They have neither currencies nor refunds: the currency is that of `migrate --currency`, and an
-- order of status refunded counts as refunded in full at the time of the order.
-- Recommended index: orders (venue_id, user_id) INCLUDE (id, tenant_id, status, total_amount,
-- created_at). Without it each venue reads all orders (200 venues, 600,000 orders: 53 s, not 6 s).

CREATE VIEW source.venues WITH (security_invoker) AS
SELECT
    v.id::uuid AS venue_id,
    v.tenant_id::uuid AS tenant_id,
    v.name::text AS name,
    NULL::text AS timezone,
    NULL::text AS currency,
    NULL::integer AS capacity,
    TRUE AS open
FROM public.venues AS v;

CREATE VIEW source.events WITH (security_invoker) AS
SELECT
    NULL::uuid AS event_id,
    NULL::uuid AS venue_id,
    NULL::uuid AS tenant_id,
    NULL::text AS name,
    NULL::text AS category,
    NULL::timestamptz AS starts_at,
    NULL::timestamptz AS ends_at,
    NULL::integer AS capacity,
    NULL::text AS status
WHERE FALSE;

CREATE VIEW source.orders WITH (security_invoker) AS
SELECT
    o.id::uuid AS order_id,
    o.tenant_id::uuid AS tenant_id,
    o.venue_id::uuid AS venue_id,
    NULL::uuid AS event_id,
    o.user_id::uuid AS customer_id,
    o.created_at::timestamptz AS ordered_at,
    NULL::timestamptz AS updated_at,
    CASE WHEN o.status = 'refunded' THEN 'refunded' ELSE 'paid' END AS status,
    TRUE AS is_sale,
    CASE WHEN o.status = 'refunded' THEN o.created_at::timestamptz END AS refunded_at,
    source.cents(o.total_amount) AS amount_cents,
    o.total_amount <> round(o.total_amount, 2) AS is_rounded,
    (SELECT a.currency FROM source.adapter AS a) AS currency,
    NULL::integer AS tickets,
    NULL::text AS channel
FROM public.orders AS o
WHERE o.status IN ('completed', 'refunded')
UNION ALL
SELECT
    o.id::uuid,
    o.tenant_id::uuid,
    o.venue_id::uuid,
    NULL::uuid,
    o.user_id::uuid,
    o.created_at::timestamptz,
    NULL::timestamptz,
    CASE WHEN o.status = 'pending' THEN 'pending' ELSE 'cancelled' END,
    FALSE,
    NULL::timestamptz,
    source.cents(o.total_amount),
    o.total_amount <> round(o.total_amount, 2),
    (SELECT a.currency FROM source.adapter AS a),
    NULL::integer,
    NULL::text
FROM public.orders AS o
WHERE o.status IS NULL OR o.status NOT IN ('completed', 'refunded');

CREATE VIEW source.refunds WITH (security_invoker) AS
SELECT
    NULL::uuid AS refund_id,
    NULL::uuid AS order_id,
    NULL::uuid AS tenant_id,
    NULL::uuid AS venue_id,
    NULL::timestamptz AS refunded_at,
    NULL::timestamptz AS updated_at,
    NULL::bigint AS amount_cents
WHERE FALSE;

CREATE VIEW source.scans WITH (security_invoker) AS
SELECT
    NULL::uuid AS scan_id,
    NULL::uuid AS event_id,
    NULL::uuid AS tenant_id,
    NULL::uuid AS venue_id,
    NULL::uuid AS ticket_id,
    NULL::timestamptz AS scanned_at,
    NULL::text AS result
WHERE FALSE;

-- The users table has no tenant, so every tenant knows its customers.
CREATE VIEW source.customers WITH (security_invoker) AS
SELECT
    u.id::uuid AS customer_id,
    NULL::uuid AS tenant_id,
    u.id::text AS external_id,
    FALSE AS deleted,
    FALSE AS erased,
    NULL::timestamptz AS updated_at
FROM public.users AS u;

CREATE VIEW source.freshness WITH (security_invoker) AS
SELECT DISTINCT
    v.tenant_id::uuid AS tenant_id,
    now() AS loaded_through
FROM public.venues AS v
WHERE v.tenant_id IS NOT NULL;

GRANT SELECT ON public.orders, public.users, public.venues TO analytics_jobs;
GRANT SELECT ON public.venues TO analytics_lister;
-- The lister needs a policy to see every tenant only if the table has row-level security.
DO $$
BEGIN
    IF (SELECT relrowsecurity FROM pg_class WHERE oid = 'public.venues'::regclass) THEN
        DROP POLICY IF EXISTS analytics_lister ON public.venues;
        CREATE POLICY analytics_lister ON public.venues
        FOR SELECT TO analytics_lister USING (TRUE);
    END IF;
END
$$;
