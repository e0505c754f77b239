-- Keys, indexes and row-level security of the platform's tables. Run once, after the load. Each
-- table has one policy: a row is visible only to its own tenant, and reading without a tenant set
-- is an error. The policies apply to the tables' owner too.

ALTER TABLE tenants ADD PRIMARY KEY (id);
ALTER TABLE users ADD PRIMARY KEY (id);
ALTER TABLE venues ADD PRIMARY KEY (id);
ALTER TABLE events ADD PRIMARY KEY (id);
ALTER TABLE event_schedules ADD PRIMARY KEY (id);
ALTER TABLE event_capacity ADD PRIMARY KEY (id);
ALTER TABLE orders ADD PRIMARY KEY (id);
ALTER TABLE order_items ADD PRIMARY KEY (id);
ALTER TABLE order_refunds ADD PRIMARY KEY (id);
ALTER TABLE ticket_scans ADD PRIMARY KEY (id);
ALTER TABLE gdpr_deletion_requests ADD PRIMARY KEY (id);

ALTER TABLE event_schedules ADD UNIQUE (event_id);
ALTER TABLE event_capacity ADD UNIQUE (event_id);

CREATE INDEX events_venue_id_idx ON events (venue_id);
CREATE INDEX orders_event_id_user_id_idx ON orders (event_id, user_id)
INCLUDE (id, tenant_id, status, currency, created_at, updated_at, total_cents);
CREATE INDEX order_refunds_tenant_id_idx ON order_refunds (tenant_id);

-- An event, and so a venue, belongs to one tenant. Without these statistics the planner estimates a
-- tenth of a venue's orders, and looks up the refunds order by order.
CREATE STATISTICS events_venue_id_tenant_id (dependencies) -- noqa: CP01
ON venue_id, tenant_id FROM events;
CREATE STATISTICS orders_event_id_tenant_id (dependencies) -- noqa: CP01
ON event_id, tenant_id FROM orders;

CREATE POLICY tenant_isolation ON tenants
USING (id = current_setting('app.current_tenant_id')::uuid);
CREATE POLICY tenant_isolation ON users
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
CREATE POLICY tenant_isolation ON venues
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
CREATE POLICY tenant_isolation ON events
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
CREATE POLICY tenant_isolation ON event_schedules
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
CREATE POLICY tenant_isolation ON event_capacity
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
CREATE POLICY tenant_isolation ON orders
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
CREATE POLICY tenant_isolation ON order_items
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
CREATE POLICY tenant_isolation ON order_refunds
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
CREATE POLICY tenant_isolation ON ticket_scans
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);
CREATE POLICY tenant_isolation ON gdpr_deletion_requests
USING (tenant_id = current_setting('app.current_tenant_id')::uuid);

ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE venues ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE event_schedules ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE event_capacity ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE order_items ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE order_refunds ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE ticket_scans ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE gdpr_deletion_requests ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
