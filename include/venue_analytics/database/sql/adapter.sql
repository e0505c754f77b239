-- One row: the adapter in force.
SELECT
    a.name,
    a.currency
FROM source.adapter AS a;
