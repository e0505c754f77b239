-- The roles of this system, made where they are missing; needs CREATEROLE. All are NOLOGIN groups
-- here: give a login of your own the role it needs (GRANT analytics_jobs TO airflow_login).
--   analytics_owner   owns what the migrations make; policies hold for it too (FORCE)
--   analytics_jobs    what every job, the command line and the tests run as
--   analytics_reader  what the analytics API reads as
--   analytics_lister  owns jobs.list_venues() alone: sees every tenant's venues, and nothing else
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
                -- roles are the server's: another database's migration may have been faster
                WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
    -- The owner hands the listing function over to the lister, without inheriting its sight
    -- (PostgreSQL 15 cannot say so: there the owner sees the venues of all tenants).
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
