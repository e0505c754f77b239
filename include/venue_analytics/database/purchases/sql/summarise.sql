-- One row: the totals of the file's valid rows.
SELECT
    count(*) AS orders,
    min(s.ordered_at) AS first_at,
    max(s.ordered_at) AS last_at,
    count(DISTINCT s.venue_id) AS venues,
    count(DISTINCT s.customer_id) AS customers
FROM pg_temp.staged_orders AS s
