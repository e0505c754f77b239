-- The audited ticketing platform's own tables, as far as the jobs read them. Keys, indexes and
-- row-level security follow in platform_access.sql: a load is faster without the former, and
-- impossible under the latter. Money is in cents; every time is an instant; a row belongs to the
-- tenant in tenant_id.

-- One row per business that sells tickets on the platform.
CREATE TABLE tenants (
    id uuid NOT NULL,
    name text NOT NULL
);

-- One row per registered customer, in the tenant where the account was created.
CREATE TABLE users (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    email text NOT NULL,
    status text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz
);

-- One row per venue; the platform allows a venue without tenant, and one without time zone.
CREATE TABLE venues (
    id uuid NOT NULL,
    tenant_id uuid,
    name text NOT NULL,
    timezone text,
    max_capacity integer NOT NULL,
    status text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz
);

-- One row per event at a venue.
CREATE TABLE events (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    venue_id uuid NOT NULL,
    name text NOT NULL,
    category text NOT NULL,
    status text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz
);

-- One row per event: when it takes place.
CREATE TABLE event_schedules (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    timezone text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- One row per event: the tickets put on sale, and the tickets sold.
CREATE TABLE event_capacity (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    total_capacity integer NOT NULL,
    sold_count integer NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- One row per order for one event. The platform declares total_amount but never writes it.
CREATE TABLE orders (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    user_id uuid,
    event_id uuid NOT NULL,
    status text NOT NULL,
    total_cents bigint,
    total_amount numeric(12, 2),
    currency text,
    ticket_quantity integer NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- One row per kind of ticket in an order.
CREATE TABLE order_items (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    order_id uuid NOT NULL,
    ticket_type_id uuid NOT NULL,
    quantity integer NOT NULL,
    unit_price_cents bigint NOT NULL,
    total_price_cents bigint NOT NULL
);

-- One row per requested refund, full or partial.
CREATE TABLE order_refunds (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    order_id uuid NOT NULL,
    refund_amount_cents bigint NOT NULL,
    refund_status text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- One row per scan at the door; a ticket may be scanned more than once.
CREATE TABLE ticket_scans (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    ticket_id uuid NOT NULL,
    scanned_at timestamptz NOT NULL,
    result text NOT NULL
);

-- One row per customer's erasure request.
CREATE TABLE gdpr_deletion_requests (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    status text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
