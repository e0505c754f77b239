-- One row a venue of any tenant: what the contract says of it.
SELECT
    v.venue_id,
    v.tenant_id,
    v.name,
    v.timezone,
    v.open
FROM jobs.list_venues() AS v;
