-- One row: the number of rows with a tenant in each of the platform's tables; under row-level
-- security, of the tenant that is set.
SELECT
    (SELECT count(*) FROM tenants) AS tenants,
    (SELECT count(*) FROM users) AS users,
    (SELECT count(*) FROM venues WHERE tenant_id IS NOT NULL) AS venues,
    (SELECT count(*) FROM events) AS events,
    (SELECT count(*) FROM event_schedules) AS event_schedules,
    (SELECT count(*) FROM event_capacity) AS event_capacity,
    (SELECT count(*) FROM orders) AS orders,
    (SELECT count(*) FROM order_items) AS order_items,
    (SELECT count(*) FROM order_refunds) AS order_refunds,
    (SELECT count(*) FROM ticket_scans) AS ticket_scans,
    (SELECT count(*) FROM gdpr_deletion_requests) AS gdpr_deletion_requests;
