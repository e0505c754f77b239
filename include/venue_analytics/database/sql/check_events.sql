-- One row: the events of one tenant, with their defects.
SELECT
    count(*) AS rows,
    count(*) - count(DISTINCT e.event_id) AS duplicates,
    count(*) FILTER (
        WHERE NOT EXISTS (
            SELECT FROM source.venues AS v
            WHERE v.venue_id = e.venue_id AND v.tenant_id = %(tenant_id)s
        )
    ) AS "at venues that its tenant does not have"
FROM source.events AS e
WHERE e.tenant_id = %(tenant_id)s;
