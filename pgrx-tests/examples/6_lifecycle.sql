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
