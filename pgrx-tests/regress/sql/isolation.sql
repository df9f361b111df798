-- What an owner sees in psql when he protects his tables, and what a tenant sees afterwards.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_owner;
CREATE ROLE regress_app;
GRANT CREATE ON DATABASE regress_isolation TO regress_owner;
SELECT tenancy.create_tenant('acme', number => 17, id => '11111111-1111-4111-8111-111111111111');
SELECT tenancy.create_tenant('globex', number => 18, id => '22222222-2222-4222-8222-222222222222');
SELECT tenancy.grant_admin('regress_owner');
SET ROLE regress_owner;
CREATE SCHEMA shop;
SET search_path = shop;

-- The plan, and the table it makes.
CREATE TABLE projects (id int PRIMARY KEY, title text NOT NULL);
INSERT INTO projects VALUES (1, 'relaunch'), (2, 'audit');
SELECT tenancy.protect_table('projects');
\echo :SQLSTATE
SELECT step, action, statement, lock FROM tenancy.plan_protection('projects', assign_existing_rows_to => 'acme') \gx
SELECT tenancy.protect_table('projects', assign_existing_rows_to => 'acme');
\d projects
SELECT tenancy.protect_table('projects');
SELECT * FROM tenancy.plan_protection('projects');

-- A foreign key gets the tenant.
CREATE TABLE tasks (id int PRIMARY KEY, tenant_id uuid, project_id int REFERENCES projects ON DELETE CASCADE, title text);
INSERT INTO tasks VALUES (1, NULL, 1, 'draft');
SELECT tenancy.protect_table('tasks');
\echo :SQLSTATE
SELECT step, action, reason FROM tenancy.plan_protection('tasks', assign_existing_rows_to => 'acme');
SELECT tenancy.protect_table('tasks', assign_existing_rows_to => 'acme');
\d tasks

-- The owner is bound like everybody.
SELECT * FROM tasks;
\echo :SQLSTATE

-- Shared and reference tables; a whole schema.
CREATE TABLE templates (id int PRIMARY KEY, tenant_id uuid, title text);
INSERT INTO templates VALUES (1, NULL, 'report'), (2, '11111111-1111-4111-8111-111111111111', 'acme report');
CREATE TABLE countries (code text PRIMARY KEY);
INSERT INTO countries VALUES ('DE');
CREATE TABLE notes (id int PRIMARY KEY, tenant_id uuid, body text);
CREATE VIEW open_tasks AS SELECT * FROM tasks;
SELECT * FROM tenancy.protect_schema('shop');
\echo :SQLSTATE
SELECT tenancy.protect_table('templates', access => 'shared');
SELECT tenancy.protect_table('countries', access => 'reference');
SELECT * FROM tenancy.protect_schema('shop');
\d templates
\d countries

-- Partitions.
CREATE TABLE events (id int, tenant_number bigint, at date) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO events VALUES (1, 17, '2026-02-01'), (2, 18, '2026-02-01');
SELECT tenancy.protect_table('events_2026', 'tenant_number');
\echo :SQLSTATE
SELECT tenancy.protect_table('events', 'tenant_number');
SELECT * FROM tenancy.protect_schema('shop', 'tenant_number');
SELECT relation, tenant_column, tenant_key, access, reference, part_of, is_enforced, protected_by = session_user AS by_me
  FROM tenancy.protected_tables ORDER BY relation::text;

-- A renamed column is followed; the call must name it.
ALTER TABLE notes RENAME COLUMN tenant_id TO whose;
SELECT relation, tenant_column, is_enforced FROM tenancy.protected_tables WHERE relation = 'notes'::regclass;
SELECT tenancy.protect_table('notes');
\echo :SQLSTATE
SELECT tenancy.protect_table('notes', 'whose');

-- What the owner takes off is shown, and put back by the next call.
ALTER TABLE notes DISABLE ROW LEVEL SECURITY;
ALTER POLICY tenancy_isolation ON notes USING (true);
SELECT relation, is_enforced FROM tenancy.protected_tables WHERE NOT is_enforced;
SELECT step, action, reason FROM tenancy.plan_protection('notes', 'whose');
SELECT tenancy.protect_table('notes', 'whose');
SELECT count(*) AS not_enforced FROM tenancy.protected_tables WHERE NOT is_enforced;

-- What is refused, and why.
SELECT tenancy.protect_table('projects', access => 'shared');
\echo :SQLSTATE
SELECT tenancy.protect_table('projects', tenant_column => 'id');
\echo :SQLSTATE
SELECT tenancy.protect_table('projects', access => 'private');
\echo :SQLSTATE
SELECT tenancy.protect_table('projects', foreign_keys => 'drop');
\echo :SQLSTATE
SELECT tenancy.protect_table('projects', assign_existing_rows_to => 'nobody');
\echo :SQLSTATE
SELECT tenancy.protect_table('countries', access => 'reference', assign_existing_rows_to => 'acme');
\echo :SQLSTATE
SELECT tenancy.protect_table('open_tasks');
\echo :SQLSTATE
SELECT tenancy.protect_table('pg_class');
\echo :SQLSTATE
SELECT tenancy.protect_table('nosuch');
\echo :SQLSTATE
SELECT tenancy.protect_table(NULL);
\echo :SQLSTATE
SELECT tenancy.protect_schema('nosuch');
\echo :SQLSTATE
SELECT tenancy.unprotect_schema('shop');
CREATE TABLE odd (id int, tenant_id numeric);
SELECT tenancy.protect_table('odd');
\echo :SQLSTATE
CREATE TABLE unknown_tenant (id int, tenant_id text);
INSERT INTO unknown_tenant VALUES (1, 'acme'), (2, 'initech'), (3, 'initech'), (4, 'hooli');
SELECT tenancy.protect_table('unknown_tenant');
\echo :SQLSTATE
CREATE TABLE crossing (id int, tenant_id uuid, project_id int REFERENCES projects);
RESET ROLE;
INSERT INTO crossing VALUES (1, '22222222-2222-4222-8222-222222222222', 1);
SET ROLE regress_owner;
SELECT tenancy.protect_table('crossing');
\echo :SQLSTATE
SELECT tenancy.protect_table('crossing', foreign_keys => 'keep');
RESET ROLE;
CREATE TABLE public.others (id int, tenant_id uuid);
SET ROLE regress_owner;
SELECT tenancy.protect_table('public.others');
\echo :SQLSTATE
RESET ROLE;

-- What a tenant sees and may do.
GRANT USAGE ON SCHEMA shop TO regress_app;
GRANT ALL ON ALL TABLES IN SCHEMA shop TO regress_app;
SELECT tenancy.grant_usage('regress_app');
SET ROLE regress_app;
BEGIN;
SET LOCAL app.current_tenant_id = 'acme';
SELECT id, title FROM projects ORDER BY id;
SELECT id, title FROM templates ORDER BY id;
SELECT id FROM events;
SELECT id FROM events_2026;
INSERT INTO tasks (id, project_id, title) VALUES (2, 2, 'review') RETURNING id, tenant_id;
UPDATE templates SET title = 'mine now' WHERE tenant_id IS NULL;
DELETE FROM countries;
SAVEPOINT s;
INSERT INTO countries VALUES ('FR');
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO templates VALUES (3, NULL, 'for all');
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO projects VALUES (3, 'planted', '22222222-2222-4222-8222-222222222222');
\echo :SQLSTATE
ROLLBACK TO s;
UPDATE projects SET tenant_id = '22222222-2222-4222-8222-222222222222';
\echo :SQLSTATE
ROLLBACK TO s;
TRUNCATE tasks;
\echo :SQLSTATE
ROLLBACK TO s;
TRUNCATE events;
\echo :SQLSTATE
COMMIT;
BEGIN;
SET LOCAL app.current_tenant_id = '18';
SELECT id FROM projects;
SELECT id FROM events;
DELETE FROM tasks;
INSERT INTO tasks (id, project_id, title) VALUES (3, 1, 'spy');
\echo :SQLSTATE
ROLLBACK;
RESET ROLE;

-- Back to what was there before.
SET ROLE regress_owner;
SELECT tenancy.unprotect_table('tasks');
\d tasks
SELECT tenancy.unprotect_table('tasks');
\echo :SQLSTATE
SELECT tenancy.unprotect_table('events_2026');
\echo :SQLSTATE
SELECT tenancy.unprotect_table('projects');
\d projects
RESET ROLE;

-- The extension does not go while tables are protected; with CASCADE they are left closed.
\set VERBOSITY terse
DROP EXTENSION pg_tenancy;
\echo :SQLSTATE
DROP EXTENSION pg_tenancy CASCADE;
\d notes
SET ROLE regress_app;
SELECT * FROM notes;
RESET ROLE;
DROP OWNED BY regress_app, regress_owner;
DROP ROLE regress_app, regress_owner;
