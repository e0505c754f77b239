-- One row: the name of the adapter in force.
SELECT a.name
FROM source.adapter AS a;
