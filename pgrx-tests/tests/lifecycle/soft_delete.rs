//! What an application deletes is gone for it, and kept.

use pg_tenancy_tests::{Cluster, Db, NASTY_NAMES, Role, Session, Tenant, quote_ident, quote_literal};

/// Two tenants and an application with notes that are kept, and comments on them.
pub struct Desk {
    pub db: Db,
    pub dba: Session,
    pub app: Role,
    pub red: Tenant,
    pub blue: Tenant,
}

impl Desk {
    pub fn on(cluster: &Cluster) -> Self {
        let db = cluster.db();
        let (dba, app, red, blue) = (db.admin(), db.application("app"), db.tenant("red"), db.tenant("blue"));
        dba.run(&format!(
            "CREATE TABLE notes (id int, tenant_id uuid NOT NULL, slug text, PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, slug));
             CREATE TABLE comments (id int PRIMARY KEY, tenant_id uuid NOT NULL, note int,
                                    FOREIGN KEY (tenant_id, note) REFERENCES notes ON DELETE CASCADE);
             SELECT tenancy.protect_table('notes'), tenancy.protect_table('comments');
             SELECT tenancy.enable_soft_delete('notes');
             GRANT SELECT, INSERT, DELETE, UPDATE (slug) ON notes TO {app};
             GRANT SELECT, INSERT, DELETE ON comments TO {app}"
        ));
        Self { db, dba, app, red, blue }
    }

    fn hidden(&self) -> String {
        self.dba.value("SELECT string_agg(id::text, ' ' ORDER BY id) FROM notes WHERE deleted_at IS NOT NULL")
    }
}

#[test]
fn a_client_sees_its_delete_done_and_the_row_is_kept() {
    let desk = Desk::on(&Cluster::shared());
    let (red, blue) = (desk.db.enter(&desk.app, &desk.red), desk.db.enter(&desk.app, &desk.blue));
    for client in [&red, &blue] {
        client.run("INSERT INTO notes (id, slug) SELECT n, 'slug ' || n FROM generate_series(1, 9) AS n");
    }
    red.session().run("SET app.current_user_id = 'alice'");
    red.changes(1, "DELETE FROM notes WHERE id = 1");
    red.sees("DELETE FROM notes WHERE id = 2 RETURNING id, deleted_by, deleted_at = now()", &["2|alice|t"]);
    red.sees("WITH gone AS (DELETE FROM notes WHERE id = 3 RETURNING id) SELECT id FROM gone", &["3"]);
    red.changes(1, "DELETE FROM notes n USING (VALUES (4)) AS v(id) WHERE n.id = v.id");
    red.transaction(|session| {
        session.run("PREPARE gone AS DELETE FROM notes WHERE id = $1");
        session.changes(1, "EXECUTE gone(5)");
        session.run("DEALLOCATE gone");
        session.run(
            "DO $$ DECLARE n int; BEGIN DELETE FROM notes WHERE id = 6; GET DIAGNOSTICS n = ROW_COUNT; ASSERT n = 1; END $$",
        );
        session.run("DECLARE c CURSOR FOR SELECT * FROM notes WHERE id = 7; FETCH c");
        session.changes(1, "DELETE FROM notes WHERE CURRENT OF c");
    });
    red.changes(0, "DELETE FROM notes WHERE id = 1");
    red.sees("SELECT id FROM notes ORDER BY id", &["8", "9"]);
    red.changes(0, "UPDATE notes SET slug = 'mine' WHERE id = 1");
    blue.sees("SELECT count(*) FROM notes", &["9"]);
    assert_eq!(desk.hidden(), "1 2 3 4 5 6 7");
    desk.dba.sees("SELECT DISTINCT deleted_by FROM notes WHERE deleted_at IS NOT NULL", &["alice"]);
    // The index of the rows that are not deleted serves.
    let plan = red.transaction(|session| session.explain("SELECT * FROM notes WHERE slug = 'slug 8'"));
    assert!(plan.contains("notes_tenant_id_slug_key"), "{plan}");
    // A session that has not loaded the library when it deletes: nothing is lost, though the server says DELETE 0.
    let fresh = desk.db.login(&desk.app);
    fresh.run(&format!("BEGIN; SET LOCAL app.current_tenant_id = '{}'", desk.red.code));
    fresh.run("DELETE FROM notes WHERE id = 8; COMMIT");
    assert_eq!(desk.hidden(), "1 2 3 4 5 6 7 8");
    if desk.dba.value("SELECT current_setting('server_version_num')::int >= 150000") == "t" {
        red.run("MERGE INTO notes n USING (VALUES (9)) AS v(id) ON n.id = v.id WHEN MATCHED THEN DELETE");
        assert_eq!(desk.hidden(), "1 2 3 4 5 6 7 8 9");
    }
    // Who passes row security deletes.
    desk.dba.changes(2, "DELETE FROM notes WHERE id = 9");
}

#[test]
fn merge_keeps_what_it_deletes_and_asks_what_policies_ask() {
    let desk = Desk::on(&Cluster::shared());
    let (dba, app) = (&desk.dba, &desk.app);
    if dba.value("SELECT current_setting('server_version_num')::int < 150000") == "t" {
        return;
    }
    dba.run(&format!(
        "CREATE TABLE sheets (id int, tenant_id uuid NOT NULL, v int) PARTITION BY LIST (v);
         CREATE TABLE sheets_1 PARTITION OF sheets FOR VALUES IN (1); CREATE TABLE sheets_2 PARTITION OF sheets DEFAULT;
         SELECT tenancy.protect_table('sheets'), tenancy.enable_soft_delete('sheets'), tenancy.enable_stamps('sheets');
         GRANT SELECT, INSERT, UPDATE, DELETE ON sheets TO {app}"
    ));
    let red = desk.db.enter(app, &desk.red);
    desk.db.enter(app, &desk.blue).run("INSERT INTO sheets (id, v) VALUES (1, 1)");
    red.run("INSERT INTO sheets (id, v) VALUES (1, 1), (2, 1), (3, 1)");
    // Deletes, moves to another partition and makes rows at once; what moves keeps who made it.
    red.changes(
        3,
        "MERGE INTO sheets t USING (VALUES (1), (2), (4)) AS s(id) ON t.id = s.id
          WHEN MATCHED AND s.id = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 2
          WHEN NOT MATCHED THEN INSERT (id, v, created_by) VALUES (s.id, 5, 'forged')",
    );
    red.sees("SELECT id, v FROM sheets ORDER BY id", &["2|2", "3|1", "4|5"]);
    let kept = "SELECT id, deleted_by IS NOT NULL, created_by = deleted_by IS NOT FALSE FROM sheets WHERE deleted_at IS NOT NULL";
    dba.sees(kept, &["1|t|t"]);
    dba.sees("SELECT DISTINCT created_by FROM sheets", &[app.name()]);
    // A query in WITH that nobody reads, and a DELETE that asks for what a policy of the application's forbids.
    red.run("WITH gone AS (DELETE FROM sheets WHERE id = 4 RETURNING id) SELECT 1");
    dba.run("CREATE POLICY frozen ON sheets AS RESTRICTIVE FOR DELETE USING (id <> 3)");
    let delete = "MERGE INTO sheets t USING (VALUES (ID)) AS s(id) ON t.id = s.id WHEN MATCHED THEN DELETE";
    red.refused("42501", &delete.replace("ID", "3"));
    // Neither does it take UPDATE to delete, nor may an UPDATE hide a row.
    dba.run(&format!("REVOKE UPDATE ON sheets FROM {app}"));
    red.changes(1, &delete.replace("ID", "2"));
    dba.run(&format!("GRANT UPDATE ON sheets TO {app}"));
    red.refused("42501", "UPDATE sheets SET deleted_at = now() WHERE id = 3");
    red.refused(
        "42501",
        "MERGE INTO sheets t USING (VALUES (3)) AS s(id) ON t.id = s.id WHEN MATCHED THEN UPDATE SET deleted_at = now()",
    );
    red.sees("SELECT id FROM sheets", &["3"]);
    dba.sees("SELECT count(*) FROM sheets WHERE deleted_at IS NULL", &["2"]);
}

#[test]
fn a_first_statement_that_deletes_keeps_rows_of_partitions_too() {
    let desk = Desk::on(&Cluster::shared());
    let app = &desk.app;
    desk.dba.run(&format!(
        "CREATE TABLE sheets (id int, tenant_id uuid NOT NULL, v int) PARTITION BY LIST (v);
         CREATE TABLE sheets_1 PARTITION OF sheets FOR VALUES IN (1); CREATE TABLE sheets_2 PARTITION OF sheets DEFAULT;
         SELECT tenancy.protect_table('sheets'), tenancy.enable_soft_delete('sheets');
         GRANT SELECT, INSERT, DELETE ON sheets TO {app}"
    ));
    desk.db.enter(app, &desk.red).run("INSERT INTO sheets (id, v) SELECT n, n % 2 FROM generate_series(1, 6) AS n");
    for first in [
        "DELETE FROM sheets WHERE id <= 2",
        "WITH gone AS (DELETE FROM sheets WHERE id = 3 RETURNING id) SELECT count(*) FROM gone",
        "WITH gone AS (DELETE FROM sheets WHERE id = 4 RETURNING id) SELECT 1",
    ] {
        let fresh = desk.db.login(app);
        fresh.run(&format!("BEGIN; SET LOCAL app.current_tenant_id = '{}'", desk.red.code));
        fresh.run(&format!("{first}; COMMIT"));
    }
    desk.dba
        .sees("SELECT id, deleted_at IS NOT NULL FROM sheets ORDER BY id", &["1|t", "2|t", "3|t", "4|t", "5|f", "6|f"]);
}

#[test]
fn a_deleted_slug_is_free_and_its_row_can_come_back() {
    let desk = Desk::on(&Cluster::shared());
    let red = desk.db.enter(&desk.app, &desk.red);
    red.run("INSERT INTO notes (id, slug) VALUES (1, 'a'), (2, 'b')");
    red.changes(2, "DELETE FROM notes");
    red.changes(1, "INSERT INTO notes (id, slug) VALUES (3, 'a') ON CONFLICT (tenant_id, slug) DO NOTHING");
    red.changes(
        1,
        "INSERT INTO notes (id, slug) VALUES (4, 'a') ON CONFLICT (tenant_id, slug) DO UPDATE SET slug = 'a'",
    );
    red.refused("23505", "INSERT INTO notes (id, slug) VALUES (4, 'a')");
    red.refused("23505", "INSERT INTO notes (id, slug) VALUES (2, 'c')");
    // Nobody deletes by hand, or brings a row deleted.
    desk.dba.run(&format!("GRANT UPDATE ON notes TO {}", desk.app));
    red.refused("42501", "UPDATE notes SET deleted_at = now() WHERE id = 3");
    red.refused("42501", "INSERT INTO notes (id, deleted_at) VALUES (5, now())");
    red.refused("42501", "SET LOCAL tenancy.with_deleted = on; SELECT * FROM notes");
    red.refused("42501", "SELECT tenancy.restore_row('notes', '{\"id\": 2}')");
    let admin = desk.db.application("admin");
    desk.dba.run(&format!("SELECT tenancy.grant_admin('{admin}'); GRANT SELECT, UPDATE ON notes TO {admin}"));
    let admin = desk.db.enter(&admin, &desk.red);
    let all = "SELECT id FROM notes ORDER BY id";
    admin.transaction(|session| {
        session.run("PREPARE everything AS SELECT id FROM notes ORDER BY id");
        session.sees("EXECUTE everything", &["3"]);
        session.run("SET LOCAL tenancy.with_deleted = on");
        session.sees("EXECUTE everything", &["1", "2", "3"]);
        session.run("SELECT tenancy.restore_row('notes', '{\"id\": 2}')");
        session.run("RESET tenancy.with_deleted");
        session.sees("EXECUTE everything", &["2", "3"]);
    });
    red.sees(all, &["2", "3"]);
    admin.refused("23505", "SELECT tenancy.restore_row('notes', '{\"id\": 1}')");
    admin.refused("42704", "SELECT tenancy.restore_row('notes', '{\"id\": 2}')");
    admin.refused("22023", "SELECT tenancy.restore_row('notes', '[]')");
    // Of another tenant there is nothing to restore.
    let blue = desk.db.enter(&desk.app, &desk.blue);
    blue.run("INSERT INTO notes (id, slug) VALUES (7, 'a')");
    blue.changes(1, "DELETE FROM notes");
    admin.refused("42704", "SELECT tenancy.restore_row('notes', '{\"id\": 7}')");
    // It ends only when somebody has said what becomes of deleted rows.
    desk.dba.refused("55000", "SELECT tenancy.unprotect_table('notes')");
    desk.dba.refused("55000", "ALTER TABLE notes DISABLE ROW LEVEL SECURITY");
    desk.dba.refused("55000", "SELECT tenancy.disable_soft_delete('notes')");
    desk.dba.refused("22023", "SELECT tenancy.disable_soft_delete('notes', 'forget')");
    desk.dba.refused("23505", "SELECT tenancy.disable_soft_delete('notes', 'restore')");
    desk.dba.run("SELECT tenancy.disable_soft_delete('notes', 'purge')");
    desk.dba.refused("42704", "SELECT tenancy.disable_soft_delete('notes', 'purge')");
    red.sees(all, &["2", "3"]);
    red.changes(1, "DELETE FROM notes WHERE id = 3");
    desk.dba.sees(
        "SELECT (SELECT count(*) FROM notes), (SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
                  WHERE attrelid = 'notes'::regclass AND attnum > 0 AND NOT attisdropped),
                (SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'notes_tenant_id_slug_key')",
        &["1|id tenant_id slug|UNIQUE (tenant_id, slug)"],
    );
    desk.dba.run("SELECT tenancy.unprotect_table('notes')");
}

#[test]
fn foreign_keys_and_partitions_stay_whole() {
    let desk = Desk::on(&Cluster::shared());
    let (dba, red) = (&desk.dba, desk.db.enter(&desk.app, &desk.red));
    red.run("INSERT INTO notes (id) VALUES (1), (2); INSERT INTO comments (id, note) VALUES (1, 1), (2, 2)");
    // The children of a row that is only hidden stay, and may come.
    red.changes(1, "DELETE FROM notes WHERE id = 1");
    red.run("INSERT INTO comments (id, note) VALUES (3, 1)");
    red.sees("SELECT id FROM comments ORDER BY id", &["1", "2", "3"]);
    // A foreign key's own DELETE deletes, or the child would refer to nothing.
    dba.run("SELECT tenancy.enable_soft_delete('comments')");
    dba.changes(1, "DELETE FROM notes WHERE id = 2");
    dba.sees("SELECT id FROM comments ORDER BY id", &["1", "3"]);
    // A key that others refer to stays whole; what is made later follows.
    dba.run(&format!(
        "CREATE TABLE logs (id int, tenant_id uuid NOT NULL, k int, code text, UNIQUE (tenant_id, k, code)) PARTITION BY LIST (k);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1);
         SELECT tenancy.protect_table('logs'); SELECT tenancy.enable_soft_delete('logs'); SELECT tenancy.enable_stamps('logs');
         CREATE TABLE logs_2 PARTITION OF logs FOR VALUES IN (2);
         GRANT SELECT, INSERT, UPDATE, DELETE ON logs, logs_2 TO {}",
        desk.app
    ));
    dba.sees(
        "SELECT relation, is_enforced FROM tenancy.soft_deleted_tables ORDER BY 1",
        &["notes|t", "comments|t", "logs|t"],
    );
    dba.sees("SELECT bool_and(is_enforced) FROM tenancy.protected_tables", &["t"]);
    red.run("INSERT INTO logs (id, k, code) VALUES (1, 1, 'x'), (2, 1, 'y')");
    // A row that goes to another partition is not deleted where it was.
    red.changes(2, "UPDATE logs SET k = 2");
    red.sees("SELECT tableoid::regclass, id FROM logs ORDER BY id", &["logs_2|1", "logs_2|2"]);
    red.changes(1, "DELETE FROM logs WHERE id = 1");
    red.changes(1, "INSERT INTO logs (id, k, code) VALUES (3, 2, 'x')");
    red.sees("SELECT id FROM logs_2 ORDER BY id", &["2", "3"]);
    dba.sees("SELECT count(*) FROM logs", &["3"]);
    dba.run("SELECT tenancy.disable_soft_delete('logs', 'purge')");
    dba.sees("SELECT tableoid::regclass, id FROM logs ORDER BY id", &["logs_2|2", "logs_2|3"]);
    dba.sees(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'logs'::regclass AND contype = 'u'",
        &["UNIQUE (tenant_id, k, code)"],
    );
}

#[test]
fn names_types_and_keys_of_every_kind() {
    let db = Db::new();
    let dba = db.admin();
    db.tenant("red");
    for name in NASTY_NAMES {
        let table = quote_ident(name);
        let literal = quote_literal(&table);
        dba.run(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, tenant_id uuid NOT NULL, {table} text, n int, UNIQUE ({table}, n) INCLUDE (id));
             CREATE UNIQUE INDEX ON {table} (lower({table})) WHERE n > 0;
             ALTER TABLE {table} ADD CONSTRAINT late UNIQUE (n) DEFERRABLE;
             SELECT tenancy.protect_table({literal})"
        ));
        let shape = format!(
            "SELECT c.relname, pg_get_indexdef(x.indexrelid), pg_get_constraintdef(k.oid) FROM pg_index x
               JOIN pg_class c ON c.oid = x.indexrelid LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid
              WHERE x.indrelid = {literal}::regclass ORDER BY c.relname COLLATE \"C\""
        );
        let before = dba.rows(&shape);
        let planned = format!("SELECT action, reason FROM tenancy.plan_soft_delete({literal})");
        assert!(dba.rows(&planned).iter().any(|step| step.contains("it is deferrable")));
        dba.run(&format!("SELECT tenancy.enable_soft_delete({literal}); SELECT tenancy.enable_soft_delete({literal})"));
        assert_eq!(dba.rows(&shape).iter().filter(|index| index.contains("deleted_at IS NULL")).count(), 2);
        dba.run(&format!("INSERT INTO {table} VALUES (1, tenancy.find_tenant('red'), 'x', 1, now())"));
        dba.run(&format!("SELECT tenancy.restore_row({literal}, '{{\"id\": 1}}')"));
        dba.run(&format!("SELECT tenancy.disable_soft_delete({literal})"));
        assert_eq!(dba.rows(&shape), before);
        dba.run(&format!("DROP TABLE {table}"));
    }
    dba.run(
        "CREATE TABLE free (id int); CREATE TABLE wrong (id int, tenant_id uuid NOT NULL, deleted_at timestamp);
         SELECT tenancy.protect_table('wrong')",
    );
    dba.refused("42704", "SELECT tenancy.enable_soft_delete('free')");
    dba.refused("42804", "SELECT tenancy.enable_soft_delete('wrong')");
    dba.sees("SELECT * FROM tenancy_internal.soft_deleted_keys", &[]);
}
