-- One row: the scans of one tenant, with their defects.
SELECT
    count(*) AS rows,
    count(*) - count(DISTINCT s.scan_id) AS duplicates,
    count(*) FILTER (
        WHERE NOT EXISTS (
            SELECT FROM source.events AS e
            WHERE e.event_id = s.event_id AND e.tenant_id = %(tenant_id)s
        )
    ) AS "at unknown events"
FROM source.scans AS s
WHERE s.tenant_id = %(tenant_id)s;
