//! How each function and procedure of schema `tenancy` is called so that it does its work, on the tables of `world.rs`.

/// A call, or several statements of one transaction. `{t}` stands for each table of `on`.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub sql: &'static str,
    pub on: &'static [&'static str],
    /// What a superuser does before, for a procedure: it commits, and so did the one before it.
    pub before: &'static str,
    /// A SQLSTATE that says that the work was done.
    pub answer: &'static str,
    pub may: Effect,
}

/// What of a session and of the rows it is for that call to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    /// The tenant of the transaction.
    Tenant,
    /// Rows of the tenant that the transaction is for, as that tenant's statements would.
    RowsOfTenant,
}

#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    pub name: &'static str,
    pub calls: &'static [Call],
}

const fn call(sql: &'static str) -> Call {
    Call { sql, on: &[""], before: "", answer: "", may: Effect::Nothing }
}

impl Call {
    const fn on(self, on: &'static [&'static str]) -> Self {
        Self { on, ..self }
    }

    const fn after(self, before: &'static str) -> Self {
        Self { before, ..self }
    }

    const fn answers(self, answer: &'static str) -> Self {
        Self { answer, ..self }
    }

    const fn may(self, may: Effect) -> Self {
        Self { may, ..self }
    }
}

const fn recipe(name: &'static str, calls: &'static [Call]) -> Recipe {
    Recipe { name, calls }
}

/// Protected, without a feature of its own.
const BARE: &[&str] = &["plain", "parted", "by_key", "parent", "tails", "tree"];
const ALL: &[&str] =
    &["plain", "parted", "by_key", "parent", "tails", "tree", "soft", "stamped", "audited", "kept", "everything"];
/// A few, for what looks long.
const WIDE: &[&str] = &["plain", "parted", "everything"];
const FRESH: &[&str] = &["raw"];

/// Rows whose time is over, once more.
const DUE: &str = "
    INSERT INTO e.kept (id, tenant_id, at, body) VALUES (2, 'ACME', '2020-01-01', 'old'), (12, 'GLOBEX', '2020-01-01', 'old') ON CONFLICT DO NOTHING;
    INSERT INTO e.tree (id, tenant_id, at, body) VALUES (2, 'ACME', '2020-01-01', 'old') ON CONFLICT DO NOTHING;
    INSERT INTO e.arch (id, tenant_id, at, body) VALUES (2, 'ACME', '2020-01-01', 'old'), (12, 'GLOBEX', '2020-01-01', 'old');
    INSERT INTO e.by_key (id, tenant_id, at, body) VALUES (2, 'ACME', '2020-01-01', 'old'), (12, 'GLOBEX', '2020-01-01', 'old');
    INSERT INTO e.parent (id, tenant_id, at, body) VALUES (2, 'ACME', '2020-01-01', 'old');
    INSERT INTO e.child (id, tenant_id, at, body) VALUES (12, 'GLOBEX', '2020-01-01', 'old');
    INSERT INTO e.soft (id, tenant_id, body, deleted_at) VALUES (2, 'ACME', 'old', '2020-01-01') ON CONFLICT DO NOTHING;
    INSERT INTO e.everything (id, tenant_id, at, body, k, deleted_at) VALUES (2, 'ACME', '2020-01-01', 'old', 2, NULL),
        (12, 'GLOBEX', '2020-01-01', 'old', 2, '2020-01-01') ON CONFLICT DO NOTHING";
/// Orphans, once more.
const ORPHANS: &str = "
    ALTER TABLE e.orphans DROP CONSTRAINT IF EXISTS orphans_fk;
    INSERT INTO e.orphans (id, tenant_id, body, head) VALUES (3, 'ACME', 'orphan', 99), (13, 'GLOBEX', 'orphan', 99)
        ON CONFLICT (tenant_id, id) DO UPDATE SET head = 99;
    SET CONSTRAINTS ALL IMMEDIATE;
    ALTER TABLE e.orphans ADD CONSTRAINT orphans_fk FOREIGN KEY (tenant_id, head) REFERENCES e.heads (tenant_id, id) NOT VALID";
/// Nothing that stands in the way of a purge but traps.
const PURGEABLE: &str = "
    DROP TABLE IF EXISTS e.raw, fresh.raw;
    DROP RULE IF EXISTS too_late ON e.stamped; DROP RULE IF EXISTS too_new ON e.stamped";

/// Calls that have nothing to do with tables of users.
pub const OF_TENANTS_AND_ROLES: &[Recipe] = &[
    // Tenants.
    recipe("create_tenant", &[call("SELECT tenancy.create_tenant('fresh', name => 'Fresh')")]),
    recipe("update_tenant", &[call("SELECT tenancy.update_tenant('acme', name => 'Acme')")]),
    recipe("set_plan", &[call("SELECT tenancy.set_plan('acme', 'free')")]),
    recipe("find_tenant", &[call("SELECT tenancy.find_tenant('acme')")]),
    recipe("suspend_tenant", &[call("SELECT tenancy.suspend_tenant('acme', 'a test')")]),
    recipe("resume_tenant", &[call("SELECT tenancy.resume_tenant('asleep')")]),
    recipe("set_read_only", &[call("SELECT tenancy.set_read_only('acme', 'a test')")]),
    recipe("delete_tenant", &[call("SELECT tenancy.delete_tenant('acme')")]),
    recipe("undelete_tenant", &[call("SELECT tenancy.undelete_tenant('gone')")]),
    recipe("bootstrap", &[call("SELECT tenancy.bootstrap('first', 'SPARE', 'ADMIN')")]),
    recipe("set_legal_hold", &[call("SELECT tenancy.set_legal_hold('acme', 'case 2')")]),
    recipe("release_legal_hold", &[call("SELECT tenancy.release_legal_hold('held')")]),
    // The tenant of a transaction.
    recipe("set_tenant", &[call("SELECT tenancy.set_tenant('acme')").may(Effect::Tenant)]),
    recipe(
        "clear_tenant",
        &[call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.clear_tenant()").may(Effect::Tenant)],
    ),
    recipe(
        "switch_tenant",
        &[call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.switch_tenant('globex')").may(Effect::Tenant)],
    ),
    recipe("has_tenant", &[call("SELECT tenancy.has_tenant()")]),
    recipe(
        "current_tenant_id",
        &[call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.current_tenant_id()").may(Effect::Tenant)],
    ),
    recipe(
        "current_tenant_number",
        &[call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.current_tenant_number()").may(Effect::Tenant)],
    ),
    recipe(
        "current_tenant_code",
        &[call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.current_tenant_code()").may(Effect::Tenant)],
    ),
    recipe(
        "assert_tenant",
        &[call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.assert_tenant('acme')").may(Effect::Tenant)],
    ),
    recipe("verify_context", &[call("SELECT * FROM tenancy.verify_context()")]),
    recipe(
        "context_dimension",
        &[call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.context_dimension('region')").may(Effect::Tenant)],
    ),
    recipe(
        "set_tenant_signed",
        &[call("SELECT tenancy.set_tenant_signed(tenancy.sign_tenant_token('acme', kid => 'k1'))").may(Effect::Tenant)],
    ),
    recipe("sign_tenant_token", &[call("SELECT tenancy.sign_tenant_token('acme')")]),
    recipe("session_nonce", &[call("SELECT tenancy.session_nonce()")]),
    recipe(
        "add_signing_key",
        &[call("SELECT tenancy.add_signing_key('k2', 'HS256', 'fedcba9876543210fedcba9876543210')")],
    ),
    recipe("retire_signing_key", &[call("SELECT tenancy.retire_signing_key('k1')")]),
    recipe("once", &[call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.once('a key')").may(Effect::Tenant)]),
    // Roles.
    recipe("bind_role", &[call("SELECT tenancy.bind_role('SPARE', 'acme')")]),
    recipe("unbind_role", &[call("SELECT tenancy.unbind_role('BOUND')")]),
    recipe("grant_usage", &[call("SELECT tenancy.grant_usage('SPARE')")]),
    recipe("revoke_usage", &[call("SELECT tenancy.revoke_usage('APP')")]),
    recipe("grant_admin", &[call("SELECT tenancy.grant_admin('SPARE')")]),
    recipe("revoke_admin", &[call("SELECT tenancy.revoke_admin('BYPASS')")]),
    recipe("is_admin", &[call("SELECT tenancy.is_admin()")]),
    recipe("exempt_role", &[call("SELECT tenancy.exempt_role('EXEMPT', 'another reason')")]),
    recipe("unexempt_role", &[call("SELECT tenancy.unexempt_role('EXEMPT')")]),
    recipe("plan_lock_down", &[call("SELECT * FROM tenancy.plan_lock_down('SPARE')")]),
    recipe("lock_down_catalogs", &[call("SELECT tenancy.lock_down_catalogs('SPARE')")]),
    recipe("unlock_catalogs", &[call("SELECT tenancy.unlock_catalogs('BOUND')")]),
];

/// Calls that look at tables of users, or change them.
pub const OF_TABLES: &[Recipe] = &[
    // Protection.
    recipe("plan_protection", &[
        call("SELECT * FROM tenancy.plan_protection('e.{t}')").on(WIDE),
        call("SELECT * FROM tenancy.plan_protection('e.{t}', assign_existing_rows_to => 'acme')").on(FRESH),
    ]),
    recipe("protect_table", &[
        call("SELECT tenancy.protect_table('e.{t}', assign_existing_rows_to => 'acme')").on(FRESH),
        call("SELECT tenancy.protect_table('e.{t}')").on(ALL),
        call("SELECT tenancy.unprotect_table('e.{t}'); SELECT tenancy.protect_table('e.{t}')").on(BARE),
    ]),
    recipe("unprotect_table", &[call("SELECT tenancy.unprotect_table('e.{t}')").on(BARE)]),
    recipe("protect_schema", &[call("SELECT * FROM tenancy.protect_schema('fresh')")]),
    recipe("unprotect_schema", &[call("SELECT tenancy.unprotect_schema('later')")]),
    recipe("plan_scope_unique", &[call("SELECT * FROM tenancy.plan_scope_unique('e.plain', 'plain_key')")]),
    recipe("scope_unique", &[call("SELECT tenancy.scope_unique('e.plain', 'plain_key')")]),
    recipe("unscope_unique", &[call("SELECT tenancy.unscope_unique('e.scoped', 'scoped_key')")]),
    recipe("tenant_view", &[call("SELECT tenancy.tenant_view('e.mv')")]),
    // Audit.
    recipe("plan_audit", &[call("SELECT * FROM tenancy.plan_audit('e.{t}')").on(WIDE)]),
    recipe("audit_table", &[call("SELECT tenancy.audit_table('e.{t}')").on(ALL), call("SELECT tenancy.audit_table('e.{t}', row_images => 'full')").on(BARE)]),
    recipe("unaudit_table", &[call("SELECT tenancy.unaudit_table('e.{t}')").on(&["audited", "everything", "kept"])]),
    recipe("log_event", &[call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.log_event('seen', 'plain', '1')").may(Effect::Tenant)]),
    recipe("row_as_of", &[
        call("SELECT tenancy.row_as_of('e.{t}', '{\"tenant_id\": \"ACME\", \"id\": 1}', pg_catalog.now())").on(&["audited", "kept"]),
        call("SELECT tenancy.row_as_of('e.{t}', '{\"tenant_id\": \"ACME\", \"id\": 1, \"k\": 1}', pg_catalog.now())").on(&["everything"]),
        call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.row_as_of('e.{t}', '{\"tenant_id\": \"ACME\", \"id\": 1}', pg_catalog.now())")
            .on(&["audited"])
            .may(Effect::Tenant),
    ]),
    recipe("row_history", &[
        call("SELECT * FROM tenancy.row_history('e.{t}', '{\"tenant_id\": \"ACME\", \"id\": 1}')").on(&["audited", "kept"]),
        call("SELECT * FROM tenancy.row_history('e.{t}', '{\"tenant_id\": \"ACME\", \"id\": 1, \"k\": 1}')").on(&["everything"]),
    ]),
    recipe("revert_transaction", &[
        call("SELECT tenancy.set_tenant('acme'); SELECT * FROM tenancy.revert_transaction(XID)").may(Effect::Tenant),
        call("SELECT tenancy.set_tenant('acme'); SELECT * FROM tenancy.revert_transaction(XID, dry_run => false)").may(Effect::RowsOfTenant),
    ]),
    recipe("tenant_activity", &[call("SELECT * FROM tenancy.tenant_activity('acme')")]),
    recipe("set_audit_retention", &[call("SELECT tenancy.set_audit_retention('1 year'), tenancy.set_audit_retention('2 years', 'acme')")]),
    recipe("maintain_audit", &[call("CALL tenancy.maintain_audit()")]),
    recipe("seal_audit", &[call("CALL tenancy.seal_audit()")]),
    recipe("verify_audit", &[call("SELECT * FROM tenancy.verify_audit()")]),
    // Integrity.
    recipe("check_integrity", &[
        call("SELECT * FROM tenancy.check_integrity()"),
        call("SELECT * FROM tenancy.check_integrity(deep => true)"),
        call("SELECT * FROM tenancy.check_integrity('data', ARRAY['e.everything', 'e.orphans']::regclass[], 100, true)"),
    ]),
    recipe("integrity_report", &[call("SELECT tenancy.integrity_report(deep => true)")]),
    recipe("assert_integrity", &[call("SELECT tenancy.assert_integrity(deep => true)").answers("23514"), call("SELECT tenancy.assert_integrity('roles')")]),
    recipe("accept_finding", &[call("SELECT tenancy.accept_finding('orphan_rows', 'orphans_fk on e.orphans', 'a test')"), call("SELECT tenancy.accept_finding('tenant_table_unprotected', 'e.raw', 'a test')")]),
    recipe("unaccept_finding", &[call("SELECT tenancy.unaccept_finding('tenant_table_unprotected', 'later.raw')")]),
    recipe("set_check", &[call("SELECT tenancy.set_check('tenant_table_unprotected', is_on => false)")]),
    recipe("register_reference", &[call("SELECT tenancy.register_reference('e.plain', '{note}', 'e.scoped', '{id}')")]),
    recipe("register_unique", &[call("SELECT tenancy.register_unique('e.plain', '{note}')")]),
    recipe("register_number", &[call("SELECT tenancy.register_number('e.plain', 'id')")]),
    recipe("register_user_table", &[call("SELECT tenancy.register_user_table('e.plain', 'boss')")]),
    recipe("unregister_reference", &[call("SELECT tenancy.unregister_reference('e.stamped', '{note}')")]),
    recipe("unregister_unique", &[call("SELECT tenancy.unregister_unique('e.stamped', '{id}')")]),
    recipe("unregister_number", &[call("SELECT tenancy.unregister_number('e.stamped', 'id')")]),
    recipe("unregister_user_table", &[call("SELECT tenancy.unregister_user_table('e.stamped')")]),
    recipe("fk_orphans", &[call("SELECT * FROM tenancy.fk_orphans('e.{t}')").on(&["orphans", "tails", "tree", "kept_tails", "stamped"])]),
    recipe("fk_verify", &[call("SELECT * FROM tenancy.fk_verify()")]),
    recipe("repair_orphans", &[
        call("CALL tenancy.repair_orphans('e.orphans', 'orphans_fk', 'delete')"),
        call("CALL tenancy.repair_orphans('e.orphans', 'orphans_fk', 'delete', dry_run => false)").after(ORPHANS),
        call("CALL tenancy.repair_orphans('e.orphans', 'orphans_fk', 'null', dry_run => false)").after(ORPHANS),
        call("CALL tenancy.repair_orphans('e.orphans', 'orphans_fk', 'quarantine', dry_run => false)").after(ORPHANS),
        call("CALL tenancy.repair_orphans('e.orphans', 'orphans_fk', 'reassign', dry_run => false, reassign_to => '{\"head\": 77}')").after(ORPHANS),
    ]),
    recipe("restore_quarantined", &[call("SELECT tenancy.restore_quarantined(1)")]),
    recipe("prove_isolation", &[call("SELECT * FROM tenancy.prove_isolation('e.{t}')").on(WIDE), call("SELECT * FROM tenancy.prove_isolation()")]),
    recipe("assert_isolation", &[call("SELECT tenancy.assert_isolation('e.{t}')").on(&["plain"]).answers("23514")]),
    recipe("diagnose", &[
        call("SELECT * FROM tenancy.diagnose('acme')"),
        call("SELECT * FROM tenancy.diagnose('acme', 'APP')"),
        call("SELECT * FROM tenancy.diagnose('acme', 'APP', 'e.{t}')").on(WIDE),
    ]),
    recipe("health", &[call("SELECT * FROM tenancy.health()")]),
    // A row's life.
    recipe("plan_soft_delete", &[call("SELECT * FROM tenancy.plan_soft_delete('e.{t}')").on(WIDE)]),
    recipe("enable_soft_delete", &[call("SELECT tenancy.enable_soft_delete('e.{t}')").on(ALL)]),
    recipe("disable_soft_delete", &[
        call("SELECT tenancy.disable_soft_delete('e.{t}', 'purge')").on(&["soft", "everything"]),
        call("SELECT tenancy.disable_soft_delete('e.{t}', 'restore')").on(&["soft", "everything"]),
    ]),
    recipe("restore_row", &[
        call("SELECT tenancy.restore_row('e.soft', '{\"tenant_id\": \"ACME\", \"id\": 2}')"),
        call("SELECT tenancy.set_tenant('acme'); SELECT tenancy.restore_row('e.soft', '{\"tenant_id\": \"ACME\", \"id\": 2}')").may(Effect::RowsOfTenant),
        call("SELECT tenancy.restore_row('e.everything', '{\"tenant_id\": \"GLOBEX\", \"id\": 12, \"k\": 2}')"),
    ]),
    recipe("plan_stamps", &[call("SELECT * FROM tenancy.plan_stamps('e.{t}')").on(WIDE)]),
    recipe("enable_stamps", &[call("SELECT tenancy.enable_stamps('e.{t}')").on(ALL)]),
    recipe("disable_stamps", &[
        call("SELECT tenancy.disable_stamps('e.{t}')").on(&["stamped", "everything"]),
        call("SELECT tenancy.disable_stamps('e.{t}', drop_columns => true)").on(&["stamped", "everything"]),
    ]),
    recipe("set_retention", &[
        call("SELECT tenancy.set_retention('e.{t}', 'at', '5 days')").on(ALL),
        call("SELECT tenancy.set_retention('e.{t}', 'at', '5 days', tenant => 'acme', action => 'archive')").on(&["plain", "parted", "soft"]),
        call("SELECT tenancy.set_retention('e.{t}', 'at', NULL)").on(&["kept", "arch"]),
    ]),
    recipe("run_retention", &[
        call("CALL tenancy.run_retention()").after(DUE),
        call("CALL tenancy.run_retention(max_seconds => 600, batch_size => 1)").after(DUE),
    ]),
    recipe("purge_deleted", &[
        call("CALL tenancy.purge_deleted()").after(DUE),
        call("CALL tenancy.purge_deleted(max_seconds => 600, batch_size => 1)").after(DUE),
    ]),
    recipe("plan_purge", &[call("SELECT * FROM tenancy.plan_purge('gone')")]),
    recipe("purge_tenant", &[
        call("CALL tenancy.purge_tenant('gone')").after(PURGEABLE),
        call("CALL tenancy.purge_tenant('gone', 'gone', dry_run => false)").after(PURGEABLE),
        call("CALL tenancy.purge_tenant('left', 'left', dry_run => false, batch_size => 1, max_seconds => 600, include_audit => true)")
            .after(PURGEABLE),
    ]),
    recipe("maintain", &[call("CALL tenancy.maintain()").after(DUE), call("CALL tenancy.maintain(max_seconds => 600)").after(DUE)]),
    recipe("maintenance_due", &[call("SELECT * FROM tenancy.maintenance_due()")]),
    recipe("schedule_maintenance", &[call("SELECT tenancy.schedule_maintenance('0 3 * * *')")]),
];
