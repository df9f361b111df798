--
-- ========== 4. Who did that? ==========
--
-- The same company. Changes of projects are to be on record; of messages only that they changed, never the text.
\c - saas_owner
SELECT tenancy.audit_table('saas.projects');
SELECT tenancy.audit_table('saas.messages', redact_columns => '{body}');
SELECT relation, row_images, redact_columns, is_enforced FROM tenancy.audited_tables;

\c - postgres
GRANT SELECT ON tenancy.audit_log TO saas_app;
SELECT clock_timestamp() AS morning \gset
-- Partitions of this month and the next two; once a day from now on.
CALL tenancy.maintain_audit();

-- The application says who acts. Tenant, role, client and transaction the server knows by itself.
\c - saas_app
BEGIN; SET LOCAL app.current_tenant_id = 'globex';
SET LOCAL app.current_user_id = 'erin@globex.example';
INSERT INTO saas.projects (title, budget) VALUES ('Move the warehouse', 90000) RETURNING title;
UPDATE saas.projects SET budget = 95000 WHERE title = 'Move the warehouse';
SELECT tenancy.log_event('report sent', 'project', 'Move the warehouse', '{"to": "board@globex.example"}') IS NOT NULL AS logged;
COMMIT;

-- A Friday afternoon: a WHERE is missing.
BEGIN; SET LOCAL app.current_tenant_id = 'globex';
SET LOCAL app.current_user_id = 'frank@globex.example';
UPDATE saas.projects SET budget = 0;
SELECT pg_current_xact_id()::text AS mistake \gset
COMMIT;

BEGIN; SET LOCAL app.current_tenant_id = 'globex';
SELECT actor, action, changed_columns, count(*) FROM tenancy.audit_log
 WHERE action <> 'report sent' GROUP BY 1, 2, 3 ORDER BY min(id);
-- What was that project before, and how did it come to this?
SELECT tenancy.row_as_of('saas.projects', jsonb_build_object('id', id), :'morning') IS NULL AS is_new
  FROM saas.projects WHERE title = 'Move the warehouse';
SELECT h.action, h.old_values -> 'budget' AS before, h.new_values -> 'budget' AS after, h.actor
  FROM saas.projects p, tenancy.row_history('saas.projects', jsonb_build_object('id', p.id)) h
 WHERE p.title = 'Move the warehouse';
COMMIT;

-- Undone as a whole, backwards, within the tenant; a row that somebody changed since would stop it.
BEGIN; SET LOCAL app.current_tenant_id = 'globex';
SELECT action, outcome, count(*) FROM tenancy.revert_transaction(:mistake, dry_run => false) GROUP BY 1, 2;
SELECT title, budget FROM saas.projects WHERE title = 'Move the warehouse';
COMMIT;

-- Another tenant sees nothing of this, and nobody whom row security binds can touch it.
BEGIN; SET LOCAL app.current_tenant_id = 'initech';
SELECT count(*) FROM tenancy.audit_log WHERE actor LIKE '%@globex.example';
COMMIT;
-- refused 42501
DELETE FROM tenancy_internal.audit_chunks;
\c - postgres
SELECT tenancy.revoke_admin('saas_owner');
\c - saas_owner
-- refused 42501
ALTER TABLE saas.projects DISABLE TRIGGER tenancy_audit_update;

-- Is the log what it was? (No month is over yet.)
\c - postgres
SELECT tenancy.grant_admin('saas_owner');
SELECT partition, ok, detail FROM tenancy.verify_audit() ORDER BY partition LIMIT 2;
