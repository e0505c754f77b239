-- One row per column of a view in schema source: its name and type. No rows: no such view.
SELECT
    a.attname AS column_name,
    format_type(a.atttypid, a.atttypmod) AS type_name,
    has_table_privilege(c.oid, 'SELECT') AS readable
FROM pg_class AS c
INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
INNER JOIN pg_attribute AS a ON c.oid = a.attrelid
WHERE
    n.nspname = 'source'
    AND c.relname = %(view)s
    AND a.attnum > 0
    AND NOT a.attisdropped;
