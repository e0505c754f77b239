-- One row an attempt that has failed: running -> failed.
UPDATE jobs.unit_run AS r SET
    outcome = 'failed',
    started_at = coalesce(g.started_at, r.started_at),
    finished_at = clock_timestamp(),
    seconds = extract(EPOCH FROM clock_timestamp() - coalesce(g.started_at, r.started_at)),
    permanent = %(permanent)s,
    is_common = %(is_common)s,
    error_type = %(error_type)s,
    error = %(error)s,
    traceback = %(traceback)s
FROM unnest(%(ids)s::bigint[], %(started_at)s::timestamptz[]) AS g (id, started_at)
WHERE r.id = g.id AND r.outcome = 'running'
RETURNING r.id;
