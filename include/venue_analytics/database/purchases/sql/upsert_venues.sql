-- One row written: a venue of the file that is new, or had another time zone.
INSERT INTO csv.venues AS v (venue_id, tenant_id, venue_name, timezone)
SELECT DISTINCT
    s.venue_id,
    %(tenant_id)s::uuid,
    s.venue_name,
    %(timezone)s::text
FROM pg_temp.staged_orders AS s
ON CONFLICT (venue_id) DO UPDATE
    SET timezone = excluded.timezone
    WHERE v.timezone IS DISTINCT FROM excluded.timezone
