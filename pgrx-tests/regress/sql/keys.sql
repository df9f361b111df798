-- What an owner sees in psql when he leads unique keys by the tenant column.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_keys_owner;
SELECT tenancy.create_tenant('acme', number => 17, id => '11111111-1111-4111-8111-111111111111');
SELECT tenancy.create_tenant('globex', number => 18, id => '22222222-2222-4222-8222-222222222222');
SELECT tenancy.grant_admin('regress_keys_owner');
CREATE SCHEMA shop AUTHORIZATION regress_keys_owner;
SET ROLE regress_keys_owner;
SET search_path = shop;

CREATE TABLE members (id int PRIMARY KEY, tenant_id uuid NOT NULL, email text, nick text, born date,
                      CONSTRAINT "members e-mail" UNIQUE (email) INCLUDE (born) WITH (fillfactor = 70)
                          DEFERRABLE INITIALLY DEFERRED);
CREATE UNIQUE INDEX members_nick ON members (lower(nick) text_pattern_ops DESC NULLS LAST) WHERE nick <> '';
COMMENT ON CONSTRAINT members_pkey ON members IS 'it''s the key';
COMMENT ON INDEX members_nick IS 'nicknames';
ALTER TABLE members REPLICA IDENTITY USING INDEX members_pkey;
ALTER TABLE members CLUSTER ON members_pkey;
CREATE TABLE logins (id int PRIMARY KEY, tenant_id uuid NOT NULL, member int REFERENCES members ON DELETE SET NULL);
INSERT INTO members VALUES (1, '11111111-1111-4111-8111-111111111111', 'ann@x', 'ann');
INSERT INTO logins VALUES (1, '11111111-1111-4111-8111-111111111111', 1);
SELECT tenancy.protect_table('members');
SELECT tenancy.protect_table('logins', foreign_keys => 'keep');

-- The plan, and the keys it makes.
SELECT * FROM tenancy.plan_scope_unique('members', 'members_pkey') \gx
SELECT tenancy.scope_unique('members', 'members_pkey');
SELECT tenancy.scope_unique('members', 'members e-mail');
SELECT tenancy.scope_unique('members', 'members_nick');
SELECT tenancy.scope_unique('members', 'members_pkey');
SELECT * FROM tenancy.plan_scope_unique('members', 'members_nick');
\d members
\d logins
SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conname = 'members_pkey';
SELECT obj_description('members_nick'::regclass, 'pg_class');

-- An index built beforehand is taken.
RESET ROLE;
CREATE UNIQUE INDEX CONCURRENTLY logins_new ON shop.logins (tenant_id, id);
SET ROLE regress_keys_owner;
SELECT step, action, statement, lock, reason FROM tenancy.plan_scope_unique('logins', 'logins_pkey');
SELECT tenancy.scope_unique('logins', 'logins_pkey');

-- And back.
SELECT tenancy.unscope_unique('members', 'members_pkey');
SELECT tenancy.unscope_unique('members', 'members_pkey');
\echo :SQLSTATE
SELECT tenancy.unprotect_table('logins');
SELECT tenancy.unprotect_table('members');
\d members
\d logins
SELECT tenancy.protect_table('members');
SELECT tenancy.protect_table('logins');

-- What is refused, and why.
SELECT tenancy.scope_unique(NULL, 'members_pkey');
\echo :SQLSTATE
SELECT tenancy.scope_unique('members', NULL);
\echo :SQLSTATE
SELECT tenancy.plan_scope_unique('members', NULL);
\echo :SQLSTATE
SELECT tenancy.unscope_unique(NULL, NULL);
\echo :SQLSTATE
SELECT tenancy.scope_unique('members', 'nosuch');
\echo :SQLSTATE
SELECT tenancy.scope_unique('logins', 'logins_member_fkey');
\echo :SQLSTATE
SELECT tenancy.scope_unique('members', 'members_tenant_id_idx');
\echo :SQLSTATE
SELECT tenancy.unscope_unique('members', 'members_pkey');
\echo :SQLSTATE
CREATE TABLE plain (id int PRIMARY KEY, email text UNIQUE, member int REFERENCES members);
SELECT tenancy.scope_unique('plain', 'plain_pkey');
\echo :SQLSTATE
SELECT tenancy.scope_unique('members', 'members_pkey');
\echo :SQLSTATE
DROP TABLE plain;
CREATE VIEW by_member AS SELECT m.id, m.nick, count(*) FROM members m JOIN logins l ON l.member = m.id GROUP BY m.id;
SELECT tenancy.scope_unique('members', 'members_pkey');
\echo :SQLSTATE
DROP VIEW by_member;
CREATE TABLE rooms (id int, tenant_id uuid NOT NULL, during int4range,
                    CONSTRAINT rooms_during EXCLUDE USING gist (during WITH &&));
SELECT tenancy.protect_table('rooms');
SELECT tenancy.scope_unique('rooms', 'rooms_during');
\echo :SQLSTATE
CREATE TABLE spots (id int, tenant_id uuid NOT NULL, at box, CONSTRAINT spots_at EXCLUDE USING spgist (at WITH &&));
SELECT tenancy.protect_table('spots');
SELECT tenancy.scope_unique('spots', 'spots_at');
\echo :SQLSTATE
CREATE TABLE templates (id int PRIMARY KEY, tenant_id uuid);
SELECT tenancy.protect_table('templates', access => 'shared');
SELECT tenancy.scope_unique('templates', 'templates_pkey');
\echo :SQLSTATE
CREATE TABLE countries (code text PRIMARY KEY);
SELECT tenancy.protect_table('countries', access => 'reference');
SELECT tenancy.scope_unique('countries', 'countries_pkey');
\echo :SQLSTATE
CREATE TABLE events (id int, tenant_id uuid NOT NULL, PRIMARY KEY (id)) PARTITION BY LIST (id);
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
SELECT tenancy.protect_table('events');
SELECT tenancy.scope_unique('events_1', 'events_1_pkey');
\echo :SQLSTATE
SELECT tenancy.scope_unique('events', 'events_pkey');
SELECT tenancy.scope_unique('events', 'events_pkey');
\d events_1
RESET ROLE;
INSERT INTO events VALUES (1, '11111111-1111-4111-8111-111111111111'), (1, '22222222-2222-4222-8222-222222222222');
SET ROLE regress_keys_owner;
SELECT tenancy.unscope_unique('events', 'events_pkey');
\echo :SQLSTATE

RESET ROLE;
DROP SCHEMA shop CASCADE;
SELECT tenancy.revoke_admin('regress_keys_owner');
DROP ROLE regress_keys_owner;
