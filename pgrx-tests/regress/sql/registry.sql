-- What an administrator sees in psql when he works on tenants.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_desk;
CREATE ROLE regress_app;
GRANT CREATE ON DATABASE regress_registry TO regress_desk;

-- Provisioning is nobody's until it is granted.
SET ROLE regress_desk;
SELECT tenancy.create_tenant('acme');
\echo :SQLSTATE
RESET ROLE;
SELECT tenancy.grant_admin('regress_desk');
SELECT tenancy.grant_usage('regress_app');
SET ROLE regress_desk;
SELECT tenancy.is_admin();

-- Each key may be given.
SELECT tenancy.create_tenant('acme', 'Acme Robotics', 'standard', '{"locale": "en"}', '{"email": "ops@acme.example"}',
                             id => '11111111-1111-4111-8111-111111111111', number => 17);
SELECT tenancy.create_tenant('globex', id => '22222222-2222-4222-8222-222222222222');
SELECT tenancy.create_tenant('Ünïcode & "quotes"', id => '33333333-3333-4333-8333-333333333333');
SELECT id, number, code, name, status, plan, settings, contact FROM tenancy.tenants ORDER BY number;

-- Keys that are taken, and codes that cannot be one.
SELECT tenancy.create_tenant('acme');
\echo :SQLSTATE
SELECT tenancy.create_tenant('initech', number => 17);
\echo :SQLSTATE
SELECT tenancy.create_tenant('initech', id => '11111111-1111-4111-8111-111111111111');
\echo :SQLSTATE
SELECT tenancy.create_tenant('acme', if_not_exists => true);
SELECT tenancy.create_tenant('acme', if_not_exists => true, number => 18);
\echo :SQLSTATE
SELECT tenancy.create_tenant('4711');
\echo :SQLSTATE
SELECT tenancy.create_tenant('11111111-1111-4111-8111-111111111111');
\echo :SQLSTATE
SELECT tenancy.create_tenant(' acme');
\echo :SQLSTATE
SELECT tenancy.create_tenant('');
\echo :SQLSTATE
SELECT tenancy.create_tenant(NULL);
\echo :SQLSTATE
SELECT tenancy.create_tenant('initech', plan => 'gold');
\echo :SQLSTATE
SELECT tenancy.create_tenant('initech', settings => '[]');
\echo :SQLSTATE

-- What changes, and what does not.
SELECT tenancy.update_tenant('17', name => 'Acme Inc.', settings => '{}');
SELECT tenancy.set_plan('22222222-2222-4222-8222-222222222222', 'enterprise');
SELECT code, name, plan, settings, contact FROM tenancy.tenants WHERE code IN ('acme', 'globex') ORDER BY 1;
SELECT tenancy.update_tenant('nobody', name => 'x');
\echo :SQLSTATE
SELECT tenancy.set_plan('acme', 'gold');
\echo :SQLSTATE
SELECT tenancy.find_tenant('acme'), tenancy.find_tenant('nobody');

-- Status: every move that is refused says which call comes first.
SELECT tenancy.suspend_tenant('acme', 'invoice 4711 is overdue');
SELECT tenancy.set_read_only('acme');
\echo :SQLSTATE
SELECT tenancy.undelete_tenant('acme');
\echo :SQLSTATE
SELECT tenancy.delete_tenant('acme', 'contract ended');
SELECT code, status, status_reason, deleted_at IS NOT NULL AS has_end FROM tenancy.tenants WHERE code = 'acme';
SELECT tenancy.resume_tenant('acme');
\echo :SQLSTATE
SELECT tenancy.undelete_tenant('acme');
SELECT tenancy.set_read_only('acme', 'export');
SELECT code, status, status_reason, deleted_at IS NOT NULL AS has_end FROM tenancy.tenants WHERE code = 'acme';
SELECT tenancy.resume_tenant('acme');
SELECT tenancy.suspend_tenant('nobody');
\echo :SQLSTATE

-- Plans.
INSERT INTO tenancy.plans (name, limits, description) VALUES ('gold', '{"users": 500}', 'on request');
SELECT tenancy.set_plan('acme', 'gold');
DELETE FROM tenancy.plans WHERE name = 'gold';
\echo :SQLSTATE
SELECT * FROM tenancy.plans ORDER BY name;

-- A tenant stays, with its keys, whoever asks.
RESET ROLE;
DELETE FROM tenancy.tenants WHERE code = 'acme';
\echo :SQLSTATE
UPDATE tenancy.tenants SET number = 18 WHERE code = 'acme';
\echo :SQLSTATE
TRUNCATE tenancy.tenants;
\echo :SQLSTATE

-- An application sees its own tenant.
SET ROLE regress_app;
SELECT code FROM tenancy.tenants;
\echo :SQLSTATE
BEGIN;
SET LOCAL app.current_tenant_id = 'globex';
SELECT code, plan FROM tenancy.tenants;
UPDATE tenancy.tenants SET plan = 'gold';
\echo :SQLSTATE
ROLLBACK;
SELECT tenancy.suspend_tenant('globex');
\echo :SQLSTATE
RESET ROLE;

-- Who may become an application role, and who may make administrators.
CREATE ROLE regress_bypass BYPASSRLS;
CREATE ROLE regress_team;
GRANT regress_bypass TO regress_team;
GRANT regress_team TO regress_app;
SELECT tenancy.grant_usage('regress_app');
\echo :SQLSTATE
SELECT tenancy.grant_usage('regress_bypass');
\echo :SQLSTATE
SET ROLE regress_desk;
SELECT tenancy.grant_admin('regress_app');
\echo :SQLSTATE
RESET ROLE;
SELECT tenancy.revoke_usage('regress_app');
SELECT tenancy.revoke_admin('regress_desk');
SET ROLE regress_desk;
SELECT tenancy.is_admin();
\echo :SQLSTATE
RESET ROLE;

REVOKE CREATE ON DATABASE regress_registry FROM regress_desk;
DROP ROLE regress_app, regress_team, regress_bypass, regress_desk;
