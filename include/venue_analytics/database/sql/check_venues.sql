-- One row per venue, of all tenants: its columns in the contract.
SELECT
    v.venue_id,
    v.tenant_id,
    v.name,
    v.timezone,
    v.open
FROM jobs.list_venues() AS v;
