-- One row an attempt that begins: its venue and id.
INSERT INTO jobs.venue_run (
    run, plan_number, batch, round, try_number, clear_number, job, venue_id, tenant_id, venue_name,
    venue_gone, as_of, rules_hash, token, host, alone, dry_run
)
SELECT
    %(run)s,
    %(plan_number)s,
    %(batch)s,
    %(round)s,
    %(try_number)s,
    %(clear_number)s,
    %(job)s,
    v.venue_id,
    v.tenant_id,
    v.name,
    v.gone,
    %(as_of)s,
    v.rules_hash,
    v.token,
    %(host)s,
    %(alone)s,
    %(dry_run)s
FROM
    unnest(
        %(venue_ids)s::uuid[],
        %(tenant_ids)s::uuid[],
        %(names)s::text[],
        %(gone)s::boolean[],
        %(rules_hashes)s::text[],
        %(tokens)s::bigint[]
    ) AS v (venue_id, tenant_id, name, gone, rules_hash, token)
RETURNING venue_id, id;
