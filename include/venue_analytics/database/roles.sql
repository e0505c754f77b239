-- Creates the missing roles of this system; needs CREATEROLE. All are NOLOGIN groups: grant your
-- login the role that it needs (GRANT analytics_jobs TO airflow_login).
--   analytics_owner   owns what the migrations create; policies apply to it too (FORCE)
--   analytics_jobs    the role of every job, the command line and the tests
--   analytics_reader  the role of the analytics API
--   analytics_lister  owns only jobs.list_venues(); sees every tenant's venues and nothing else
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'analytics_owner', 'analytics_jobs', 'analytics_reader', 'analytics_lister'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION
                -- roles are global: a migration of another database may have created it meanwhile
                WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
    -- The owner transfers the listing function to the lister, but must not inherit its rights.
    -- PostgreSQL 15 cannot express that: there the owner sees the venues of all tenants.
    IF NOT EXISTS (
        SELECT FROM pg_auth_members AS m
        WHERE m.roleid = 'analytics_lister'::regrole AND m.member = 'analytics_owner'::regrole
    ) THEN
        IF current_setting('server_version_num')::int >= 160000 THEN
            EXECUTE 'GRANT analytics_lister TO analytics_owner WITH INHERIT FALSE, SET TRUE';
        ELSE
            EXECUTE 'GRANT analytics_lister TO analytics_owner';
        END IF;
    END IF;
END
$$;
