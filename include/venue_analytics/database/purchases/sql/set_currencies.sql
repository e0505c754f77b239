-- One row written: a venue whose currency changed. A venue's currency is that of most of its sales
-- over all data sets; on a tie, the first by name.
UPDATE csv.venues AS v
SET currency = most.currency
FROM (
    SELECT DISTINCT ON (o.venue_id)
        o.venue_id,
        o.currency
    FROM csv.orders AS o
    GROUP BY o.venue_id, o.currency
    ORDER BY
        o.venue_id ASC,
        count(*) FILTER (WHERE o.status IN ('paid', 'refunded')) DESC,
        o.currency ASC
) AS most
WHERE v.venue_id = most.venue_id AND v.currency IS DISTINCT FROM most.currency
