-- One row per customer of a venue, over all venues: the input of the scores. The placeholder in
-- braces is replaced by the text of purchases.sql.
SELECT
    p.venue_id,
    p.tenant_id,
    p.user_id AS customer_id,
    count(*)::integer AS purchases,
    sum(p.cents)::bigint AS spent_cents,
    min(p.created_at) AS first_at,
    max(p.created_at) AS last_at
FROM ({purchases}) AS p
GROUP BY p.venue_id, p.tenant_id, p.user_id
