-- One row deleted: a venue without orders in any data set.
DELETE FROM csv.venues AS v
WHERE NOT EXISTS (
    SELECT FROM csv.orders AS o
    WHERE o.venue_id = v.venue_id
)
