-- One row an attempt that begins: its unit and id.
INSERT INTO jobs.unit_run (
    run, for_plan, batch, round, try_number, clear_number, job, unit_id, tenant_id, unit_name,
    unit_gone, as_of, rules_hash, token, host, alone, dry_run
)
SELECT
    %(run)s,
    %(for_plan)s,
    %(batch)s,
    %(round)s,
    %(try_number)s,
    %(clear_number)s,
    %(job)s,
    v.unit_id,
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
        %(unit_ids)s::uuid[],
        %(tenant_ids)s::uuid[],
        %(names)s::text[],
        %(gone)s::boolean[],
        %(rules_hashes)s::text[],
        %(tokens)s::bigint[]
    ) AS v (unit_id, tenant_id, name, gone, rules_hash, token)
RETURNING unit_id, id;
