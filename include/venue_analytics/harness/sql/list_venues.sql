-- One row a venue of the source, of every tenant.
SELECT
    v.venue_id,
    v.tenant_id,
    v.name,
    v.timezone,
    v.currency,
    v.open
FROM jobs.list_venues() AS v
ORDER BY v.name, v.venue_id;
