-- At most one row: the currency of most of a venue's sales (of equals, the first by name).
SELECT o.currency
FROM source.orders AS o
WHERE
    o.venue_id = %(venue_id)s
    AND o.tenant_id = %(tenant_id)s
    AND o.status IN ('paid', 'refunded')
    AND o.ordered_at < %(as_of)s
    AND o.currency IS NOT NULL
GROUP BY o.currency
ORDER BY count(*) DESC, o.currency ASC
LIMIT 1;
