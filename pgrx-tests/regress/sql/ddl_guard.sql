-- What the guard says to an owner, to an administrator and to a superuser who change protected tables.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_owner;
CREATE ROLE regress_app;
CREATE ROLE regress_admin IN ROLE regress_owner;
GRANT CREATE ON DATABASE regress_ddl_guard TO regress_owner;
GRANT regress_app TO regress_owner;
SELECT tenancy.create_tenant('acme', number => 17, id => '11111111-1111-4111-8111-111111111111');
SELECT tenancy.grant_usage('regress_app'), tenancy.grant_admin('regress_admin');
CREATE SCHEMA shop AUTHORIZATION regress_owner;
GRANT ALL ON SCHEMA shop TO regress_app;
SET search_path = shop;

-- New tables of a protected schema are protected as they come.
SELECT * FROM tenancy.protect_schema('shop');
SELECT schema, tenant_column, access FROM tenancy.protected_schemas;
SET ROLE regress_owner;
CREATE TABLE projects (id int PRIMARY KEY, tenant_id uuid NOT NULL, title text);
CREATE TABLE tasks (id int PRIMARY KEY, tenant_id uuid NOT NULL, project int REFERENCES projects);
CREATE TABLE countries (code text PRIMARY KEY);
CREATE TABLE events (id int, tenant_id uuid, kind int) PARTITION BY LIST (kind);
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
CREATE TABLE odd (id int, tenant_id numeric);
\d tasks
RESET ROLE;
SELECT relation, part_of, is_enforced FROM tenancy.protected_tables ORDER BY relation::text;

-- What takes protection off is refused to the owner, with the way there is.
SET ROLE regress_owner;
ALTER TABLE projects DISABLE ROW LEVEL SECURITY;
\echo :SQLSTATE
ALTER TABLE projects NO FORCE ROW LEVEL SECURITY, ALTER COLUMN tenant_id DROP DEFAULT;
DROP POLICY tenancy_isolation ON projects;
ALTER POLICY tenancy_isolation ON projects TO regress_app;
ALTER TABLE projects DISABLE TRIGGER USER;
ALTER TABLE projects DROP COLUMN tenant_id CASCADE;
ALTER TABLE projects OWNER TO regress_app;
CREATE RULE twice AS ON INSERT TO projects DO ALSO NOTIFY projects;
CREATE POLICY support ON projects USING (current_setting('app.support', true) = 'on');
CREATE POLICY wide ON projects USING (tenant_id = tenancy.current_tenant_id() OR title = 'public');
CREATE MATERIALIZED VIEW totals AS SELECT tenant_id, count(*) FROM projects GROUP BY 1 WITH NO DATA;

-- What has no effect is told, what narrows is let pass.
CREATE POLICY mine ON projects USING (title <> 'hidden');
DROP POLICY mine ON projects;
CREATE POLICY mine ON projects AS RESTRICTIVE USING (title <> 'hidden');

-- Ordinary changes.
ALTER TABLE projects ADD COLUMN due date, ADD COLUMN note text;
ALTER TABLE projects RENAME COLUMN note TO remark;
ALTER TABLE tasks DROP CONSTRAINT tasks_project_fkey;
ALTER TABLE tasks ADD FOREIGN KEY (project) REFERENCES projects ON DELETE CASCADE NOT VALID;
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'tasks'::regclass AND contype = 'f';
ALTER TABLE events DETACH PARTITION events_1;
CREATE TABLE outside (id int);
ALTER TABLE projects RENAME TO jobs;
ALTER TABLE jobs RENAME TO projects;

-- An administrator is told, and let.
SET ROLE regress_admin;
ALTER TABLE projects NO FORCE ROW LEVEL SECURITY;
SELECT relation, is_enforced FROM tenancy.protected_tables WHERE NOT is_enforced;
SELECT tenancy.protect_table('projects');
SELECT relation, is_enforced FROM tenancy.protected_tables WHERE NOT is_enforced;

-- So is a superuser, also of what would carry rows elsewhere.
RESET ROLE;
CREATE VIEW all_projects AS SELECT * FROM projects;
CREATE MATERIALIZED VIEW totals AS SELECT tenant_id, count(*) FROM projects GROUP BY 1;
CREATE FUNCTION count_projects() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(*) FROM shop.projects $$;
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE remote_projects (id int, tenant_id uuid) SERVER nowhere;
CREATE TABLE public.loose (id int, tenant_id uuid);

-- A materialized view is read through a view of it.
SELECT tenancy.tenant_view('totals');
SELECT reloptions FROM pg_class WHERE oid = 'totals_of_tenant'::regclass;
SELECT tenancy.tenant_view('totals');
SELECT tenancy.tenant_view('projects');
SELECT tenancy.tenant_view(NULL);
DROP VIEW totals_of_tenant;
SELECT * FROM tenancy_internal.tenant_views;

-- The other modes.
SET tenancy.ddl_guard = warn;
CREATE TABLE later (id int, tenant_id uuid);
CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2);
SET tenancy.ddl_guard = off;
ALTER TABLE projects DISABLE ROW LEVEL SECURITY;
RESET tenancy.ddl_guard;

-- The end of it.
SELECT tenancy.unprotect_schema('shop');
SELECT tenancy.unprotect_schema('shop');
\echo :SQLSTATE
SELECT tenancy.unprotect_schema(NULL);
SELECT tenancy_internal.guard_ddl();
\echo :SQLSTATE
SELECT tenancy_internal.refuse_truncate();
\echo :SQLSTATE
SET client_min_messages = warning;
DROP SCHEMA shop CASCADE;
SELECT relation FROM tenancy.protected_tables;
DROP FOREIGN DATA WRAPPER nothing CASCADE;
DROP TABLE public.loose;
SELECT tenancy.revoke_usage('regress_app'), tenancy.revoke_admin('regress_admin');
REVOKE ALL ON DATABASE regress_ddl_guard FROM regress_owner;
DROP ROLE regress_admin, regress_app, regress_owner;
