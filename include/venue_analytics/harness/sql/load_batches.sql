-- One row a batch of a run, or the one batch asked for.
SELECT
    b.number,
    b.label,
    b.units,
    b.ended_well_at_clear IS NOT NULL AS ended_well
FROM jobs.batch AS b
WHERE b.run = %(run)s AND (b.number = %(number)s OR %(number)s::integer IS NULL)
ORDER BY b.number;
