--
-- ========== 6. The customer leaves ==========
--
-- Globex has ended its contract, and wants to know that nothing of it is left.
\c - postgres
SELECT tenancy.delete_tenant('globex', 'contract ended');
SELECT step, relation, how, estimated_rows FROM tenancy.plan_purge('globex');

-- Its lawyers are not done yet: a hold stands above everything.
SELECT tenancy.set_legal_hold('globex', 'case 4711');
-- refused 55000
CALL tenancy.purge_tenant('globex', confirm => 'globex', dry_run => false);
SELECT tenancy.release_legal_hold('globex');

-- The wrong name, the day after a long night.
-- refused 22023
CALL tenancy.purge_tenant('globex', confirm => 'acme', dry_run => false);

-- First it only tells. Then it goes, what refers before what is referred to, in batches that commit, and counts at the end.
CALL tenancy.purge_tenant('globex');
CREATE TEMPORARY TABLE before AS SELECT count(*) AS rows, md5(string_agg(t::text, ' ' ORDER BY t.id)) AS digest
  FROM saas.tasks t WHERE tenant_id <> tenancy.find_tenant('globex');
CALL tenancy.purge_tenant('globex', confirm => 'globex', dry_run => false);
SELECT count(*) AS rows_of_globex FROM saas.tasks WHERE tenant_id = tenancy.find_tenant('globex');
SELECT rows, digest = (SELECT md5(string_agg(t::text, ' ' ORDER BY t.id)) FROM saas.tasks t) AS others_untouched FROM before;
DROP TABLE before;

-- What is left of it: a certificate, bound to the one before, and keys that nobody gets again.
SELECT number, tenant_code, rows, tables, finished_by, is_intact FROM tenancy.purge_certificates \gx
SELECT kind, subject, done, state FROM tenancy.jobs;
-- refused 55000
SELECT tenancy.undelete_tenant('globex');
-- refused 42710
SELECT tenancy.create_tenant('globex');

--
-- ---------- What stays, and for how long ----------
--
-- Users delete by mistake, and want it back the day after. So messages are kept when they are deleted, and the server itself writes down
-- who made and who changed a message. Not a line of the application changes.
\c - saas_owner
SELECT tenancy.enable_stamps('saas.messages');
SELECT tenancy.enable_soft_delete('saas.messages');

\c - saas_app
BEGIN; SET LOCAL app.current_tenant_id = 'acme';
SET LOCAL app.current_user_id = 'dana@acme.example';
INSERT INTO saas.messages (task_id, body, sent_at) SELECT min(id), 'The signed copy is attached.', now() FROM saas.tasks
RETURNING body, created_by, created_at = now() AS stamped;
COMMIT;

BEGIN; SET LOCAL app.current_tenant_id = 'acme';
SET LOCAL app.current_user_id = 'eve@acme.example';
DELETE FROM saas.messages WHERE body = 'The signed copy is attached.';
SELECT count(*) AS seen FROM saas.messages WHERE body = 'The signed copy is attached.';
COMMIT;

-- The day after, on the phone. Who was it? And it is back.
\c - postgres
SELECT body, created_by, deleted_by FROM saas.messages WHERE deleted_at IS NOT NULL;
SELECT tenancy.restore_row('saas.messages', jsonb_build_object('id', id)) FROM saas.messages WHERE deleted_at IS NOT NULL;
\c - saas_app
BEGIN; SET LOCAL app.current_tenant_id = 'acme';
SELECT count(*) AS seen FROM saas.messages WHERE body = 'The signed copy is attached.';
COMMIT;

-- Nothing is kept for ever, either. Messages go after a year; Initech's contract says thirty days, and wants them archived.
\c - postgres
SELECT tenancy.set_retention('saas.messages', 'sent_at', '1 year');
SELECT tenancy.set_retention('saas.messages', 'sent_at', '30 days', tenant => 'initech', action => 'archive');
SELECT part, subject, detail FROM tenancy.maintenance_due() WHERE is_due;

-- One call each night does all that is due: the audit log's partitions, retention, what was deleted a month ago, statistics.
CALL tenancy.maintain();
SELECT part, state, failure FROM tenancy.maintenance_runs ORDER BY started_at;
SELECT t.code, count(*) AS archived, max(sent_at) < now() - interval '30 days' AS all_old
  FROM saas.messages_archive a JOIN tenancy.tenants t ON t.id = a.tenant_id GROUP BY 1;
SELECT tenancy.schedule_maintenance('17 3 * * *');
