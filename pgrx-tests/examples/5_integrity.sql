--
-- ========== 5. Can you prove it? ==========
--
-- The auditor of a customer asks whether its data can be seen by another one. Each table is tried, as the application's own
-- role, with rows made for it; then all of it is undone.
\c - postgres
SELECT relation, count(*) AS probes, bool_and(ok IS TRUE) AS all_as_expected
  FROM tenancy.prove_isolation(role => 'saas_app') GROUP BY relation ORDER BY relation;

-- And the build server asks each night, of catalog, roles and rows. An error here fails the build.
SELECT tenancy.assert_integrity();

-- A year later. Somebody needed a report at once, somebody repaired data by hand, and somebody made a table.
SET tenancy.ddl_guard = off;
ALTER POLICY tenancy_isolation ON saas.tasks USING (true);
CREATE TABLE saas.exports (tenant_id uuid, file text);
SET session_replication_role = replica;
UPDATE saas.messages SET task_id = (SELECT max(id) FROM saas.tasks WHERE tenant_id <> saas.messages.tenant_id)
 WHERE id = (SELECT min(id) FROM saas.messages);
RESET session_replication_role;
RESET tenancy.ddl_guard;

-- refused 23514
SELECT tenancy.assert_integrity(deep => true);
SELECT check_id, severity, object, detail, remedy FROM tenancy.check_integrity(deep => true) WHERE severity = 'error' \gx

-- Was anything open meanwhile? Not here: the fence of this server adds a policy that no ALTER reaches.
SELECT command, probe, expected, got FROM tenancy.prove_isolation('saas.tasks', 'saas_app') WHERE ok IS NOT TRUE;

-- Each finding brings what mends it.
SELECT remedy FROM tenancy.check_integrity(deep => true) WHERE severity = 'error' AND remedy IS NOT NULL \gexec
SELECT check_id, object FROM tenancy.check_integrity(deep => true) WHERE severity = 'error';
SELECT relation, reason FROM tenancy.quarantined_rows;

-- "Our users see nothing!" Link by link from the role to its rows.
SELECT tenancy.suspend_tenant('globex', 'invoice 4711 is open');
SELECT link, state, detail, remedy FROM tenancy.diagnose('globex', 'saas_app', 'saas.projects') WHERE state = 'broken' \gx
SELECT tenancy.resume_tenant('globex');
