-- One row deleted: a venue of which no file has an order any more.
DELETE FROM csv.venues AS v
WHERE NOT EXISTS (
    SELECT FROM csv.orders AS o
    WHERE o.venue_id = v.venue_id
)
