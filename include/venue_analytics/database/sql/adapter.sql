-- One row: the adapter in force.
SELECT
    a.name,
    a.currency,
    a.keeps_updated_at
FROM source.adapter AS a;
