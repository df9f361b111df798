//! What protect_table does to a user's tables, what it refuses, and that all of it can be shown first and undone.

use pg_tenancy_tests::{Cluster, Db, NASTY_NAMES, Role, Session, Tenant, quote_ident, quote_literal};

/// A database with two tenants, an administrator who owns the tables, and an application.
struct Scene {
    db: Db,
    superuser: Session,
    /// Owns what it makes, may protect it, is no superuser.
    owner: Session,
    owner_role: Role,
    app: Role,
    red: Tenant,
    blue: Tenant,
}

impl Scene {
    fn new() -> Self {
        let db = Db::new();
        let (red, blue) = (db.tenant("red"), db.tenant("blue"));
        let (owner_role, app) = (db.role("owner", ""), db.application("app"));
        let superuser = db.admin();
        superuser.run(&format!(
            "SELECT tenancy.grant_admin('{owner_role}');
             GRANT CREATE ON SCHEMA public TO {owner_role};
             ALTER DEFAULT PRIVILEGES FOR ROLE {owner_role} GRANT ALL ON TABLES TO {app}"
        ));
        let owner = db.login(&owner_role);
        Self { db, superuser, owner, owner_role, app, red, blue }
    }

    /// A session of the application in a transaction of that tenant.
    #[track_caller]
    fn begin_as(&self, tenant: &str) -> Session {
        let session = self.db.login(&self.app);
        session.run(&format!("BEGIN; SELECT tenancy.set_tenant({})", quote_literal(tenant)));
        session
    }

    /// The schema of the whole database as pg_dump writes it.
    fn dump(&self) -> String {
        let output = self.db.program("pg_dump").arg("--schema-only").output().expect("pg_dump runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Since 15.14 a dump opens and ends with a random key.
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    fn has_nothing_left_to_do(&self, table: &str, arguments: &str) {
        self.owner.sees(
            &format!(
                "SELECT action, statement FROM tenancy.plan_protection({}{arguments}) WHERE statement IS NOT NULL",
                quote_literal(table)
            ),
            &[],
        );
    }

    /// Refused, with nothing on record.
    #[track_caller]
    fn refuses(&self, sqlstate: &str, call: &str) -> pg_tenancy_tests::DbError {
        let refusal = self.owner.refused(sqlstate, &format!("SELECT tenancy.{call}"));
        self.superuser.sees("SELECT relation FROM tenancy_internal.protected_tables", &[]);
        refusal
    }
}

/// Compares line by line, so that a failure shows where.
#[track_caller]
fn same_text(before: &str, after: &str) {
    let (mut before, mut after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    while !before.is_empty() && before.first() == after.first() {
        before.remove(0);
        after.remove(0);
    }
    while !before.is_empty() && before.last() == after.last() {
        before.pop();
        after.pop();
    }
    assert!(before == after, "the schema differs\n  before: {before:#?}\n  after: {after:#?}");
}

#[test]
fn a_protected_table_has_all_that_isolation_needs() {
    let scene = Scene::new();
    scene.owner.run("CREATE TABLE orders (id int PRIMARY KEY, item text); SELECT tenancy.protect_table('orders')");
    scene.owner.sees(
        "SELECT attname, atttypid::regtype, attnotnull, pg_get_expr(adbin, adrelid)
           FROM pg_attribute JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = 'orders'::regclass",
        &["tenant_id|uuid|t|tenancy.current_tenant_id()"],
    );
    scene
        .owner
        .sees("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = 'orders'::regclass", &["t|t"]);
    scene.owner.sees(
        "SELECT polname, polpermissive, polcmd, polroles = '{0}' FROM pg_policy WHERE polrelid = 'orders'::regclass ORDER BY 1",
        &["tenancy_isolation|f|*|t", "tenancy_isolation_delete|f|d|t", "tenancy_open|t|*|t"],
    );
    scene.owner.sees("SELECT tgname FROM pg_trigger WHERE tgrelid = 'orders'::regclass", &["tenancy_truncate_guard"]);
    scene.owner.sees(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'orders' AND indexdef LIKE '%(tenant_id)%'",
        &["CREATE INDEX orders_tenant_id_idx ON public.orders USING btree (tenant_id)"],
    );
    scene.owner.sees(
        "SELECT relation, tenant_column, tenant_key, access, reference, part_of, is_enforced, protected_by = session_user
           FROM tenancy.protected_tables",
        &["orders|tenant_id|id|tenant|policy|NULL|t|t"],
    );
    let red = scene.begin_as("red");
    red.changes(1, "INSERT INTO orders VALUES (1, 'pen')");
    red.sees("SELECT item, tenant_id = tenancy.current_tenant_id() FROM orders", &["pen|t"]);
    red.run("COMMIT");
    scene.begin_as("blue").sees("SELECT item FROM orders", &[]);
}

#[test]
fn every_type_that_holds_a_key_can_be_a_tenant_column() {
    let scene = Scene::new();
    scene.owner.run(
        "CREATE DOMAIN tenant_uuid AS uuid; CREATE DOMAIN tenant_number AS int CHECK (VALUE > 0);
         CREATE DOMAIN tenant_text AS text; CREATE DOMAIN tenant_varchar AS varchar(30); CREATE DOMAIN twice AS tenant_number",
    );
    let (red, blue) = (&scene.red, &scene.blue);
    let id = (red.id.to_string(), blue.id.to_string(), "id", "uuid");
    let number = (red.number.to_string(), blue.number.to_string(), "number", "bigint");
    let code = (red.code.clone(), blue.code.clone(), "code", "text");
    for (position, (column_type, (mine, theirs, key, _))) in [
        ("uuid", &id),
        ("tenant_uuid", &id),
        ("bigint", &number),
        ("integer", &number),
        ("smallint", &number),
        ("tenant_number", &number),
        ("twice", &number),
        ("text", &code),
        ("text COLLATE \"C\"", &code),
        ("varchar", &code),
        ("varchar(20)", &code),
        ("tenant_text", &code),
        ("tenant_varchar", &code),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("t{position}");
        scene.owner.run(&format!(
            "CREATE TABLE {table} (id int, owned_by {column_type}, item text);
             INSERT INTO {table} VALUES (1, '{mine}', 'mine'), (2, '{theirs}', 'theirs')"
        ));
        scene.owner.run(&format!("SELECT tenancy.protect_table('{table}', 'owned_by')"));
        scene.has_nothing_left_to_do(&table, ", 'owned_by'");
        scene.owner.sees(
            &format!("SELECT tenant_key FROM tenancy.protected_tables WHERE relation = '{table}'::regclass"),
            &[key],
        );

        let session = scene.begin_as("red");
        session.sees(&format!("SELECT item FROM {table}"), &["mine"]);
        session.changes(1, &format!("INSERT INTO {table} (id) VALUES (3)"));
        session.sees(&format!("SELECT owned_by FROM {table} WHERE id = 3"), &[mine]);
        session.run("SET LOCAL enable_seqscan = off");
        let plan = session.explain(&format!("SELECT item FROM {table}"));
        assert!(plan.contains("Index Cond"), "{column_type}: {plan}");
        session.refused("42501", &format!("UPDATE {table} SET owned_by = '{theirs}'"));
    }
}

#[test]
fn other_types_are_refused() {
    let scene = Scene::new();
    scene.owner.run(
        "CREATE DOMAIN money_like AS numeric; CREATE TYPE pair AS (a int, b int); CREATE TYPE mood AS ENUM ('red')",
    );
    for column_type in
        ["numeric", "char(10)", "name", "bytea", "uuid[]", "jsonb", "boolean", "money_like", "pair", "mood", "oid"]
    {
        scene.owner.run(&format!("CREATE TABLE t (id int, tenant_id {column_type})"));
        let refusal = scene.refuses("42804", "protect_table('t')");
        assert!(refusal.hint().is_some_and(|hint| hint.contains("uuid")), "{refusal:?}");
        scene.owner.run("DROP TABLE t");
    }
    let loose = "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    match scene.owner.try_run(loose) {
        Ok(()) => {
            scene.owner.run("CREATE TABLE t (id int, tenant_code text COLLATE loose)");
            scene.refuses("0A000", "protect_table('t', 'tenant_code')");
        }
        // A server built without ICU has no such collations.
        Err(error) => assert!(format!("{error:?}").contains("ICU"), "{error:?}"),
    }
}

#[test]
fn a_missing_column_is_added_where_it_is_clear_whose_the_rows_are() {
    let scene = Scene::new();
    scene.owner.run(
        "CREATE TABLE empty (id int); CREATE TABLE full_of_rows (id int); INSERT INTO full_of_rows VALUES (1), (2)",
    );
    scene.owner.run("SELECT tenancy.protect_table('empty', 'whose')");
    scene.owner.sees("SELECT tenant_column FROM tenancy.protected_tables", &["whose"]);
    scene.owner.run("SELECT tenancy.unprotect_table('empty')");

    let refusal = scene.refuses("42703", "protect_table('full_of_rows')");
    assert!(refusal.hint().is_some_and(|hint| hint.contains("assign_existing_rows_to")), "{refusal:?}");
    for tenant in ["red", &scene.red.id.to_string(), &scene.red.number.to_string()] {
        scene
            .owner
            .run(&format!("SELECT tenancy.protect_table('full_of_rows', assign_existing_rows_to => '{tenant}')"));
        scene.begin_as("red").sees("SELECT id FROM full_of_rows ORDER BY id", &["1", "2"]);
        scene.begin_as("blue").sees("SELECT id FROM full_of_rows", &[]);
        scene
            .owner
            .run("SELECT tenancy.unprotect_table('full_of_rows'); ALTER TABLE full_of_rows DROP COLUMN tenant_id");
    }
    scene.refuses("42704", "protect_table('full_of_rows', assign_existing_rows_to => 'nobody')");
    scene.refuses("22023", "protect_table('full_of_rows', access => 'shared', assign_existing_rows_to => 'red')");
    scene.refuses("22023", "protect_table('full_of_rows', access => 'reference', assign_existing_rows_to => 'red')");
}

#[test]
fn rows_without_a_tenant_are_assigned_or_refused() {
    let scene = Scene::new();
    for (column, key) in
        [("uuid", scene.blue.id.to_string()), ("int", scene.blue.number.to_string()), ("text", "blue".to_owned())]
    {
        scene.owner.run(&format!(
            "CREATE TABLE t (id int, tenant_id {column});
             INSERT INTO t VALUES (1, '{key}'), (2, NULL), (3, NULL)"
        ));
        let refusal = scene.refuses("23502", "protect_table('t')");
        assert!(refusal.message().contains("2 rows"), "{refusal:?}");
        scene.owner.run("SELECT tenancy.protect_table('t', assign_existing_rows_to => 'red')");
        scene.begin_as("red").sees("SELECT id FROM t ORDER BY id", &["2", "3"]);
        scene.begin_as("blue").sees("SELECT id FROM t", &["1"]);
        scene.owner.run("DROP TABLE t");
    }
}

#[test]
fn rows_of_unknown_tenants_are_refused_with_a_sample() {
    let scene = Scene::new();
    scene.owner.run(&format!(
        "CREATE TABLE t (id int, tenant_number int);
         INSERT INTO t SELECT n, n FROM generate_series(1001, 1020) n;
         INSERT INTO t VALUES (1, {})",
        scene.red.number
    ));
    let refusal = scene.refuses("23503", "protect_table('t', 'tenant_number')");
    assert!(refusal.message().contains("20 rows"), "{refusal:?}");
    assert!(
        refusal.detail().is_some_and(|detail| detail.contains("1001") && detail.contains("15 more")),
        "{refusal:?}"
    );
    scene.owner.run("CREATE TABLE u (id int, tenant_code text); INSERT INTO u VALUES (1, 'RED'), (2, ' red'), (3, '')");
    scene.refuses("23503", "protect_table('u', 'tenant_code')");
    // A tenant out of service is known all the same.
    scene.superuser.run("SELECT tenancy.delete_tenant('red', 'left'); DELETE FROM t WHERE id > 1000");
    scene.owner.run("SELECT tenancy.protect_table('t', 'tenant_number')");
}

#[test]
fn what_is_no_table_of_the_users_is_refused() {
    let scene = Scene::new();
    scene.superuser.run(&format!(
        "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER files FOREIGN DATA WRAPPER nothing;
         CREATE FOREIGN TABLE elsewhere (id int, tenant_id uuid) SERVER files;
         ALTER FOREIGN TABLE elsewhere OWNER TO {}",
        scene.owner_role
    ));
    scene.owner.run(
        "CREATE TABLE base (id int PRIMARY KEY, tenant_id uuid);
         CREATE VIEW a_view AS SELECT * FROM base;
         CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM base;
         CREATE SEQUENCE a_sequence;
         CREATE TYPE a_type AS (id int, tenant_id uuid);
         CREATE TEMP TABLE temporary (id int, tenant_id uuid);
         CREATE TABLE parted (id int, tenant_id uuid) PARTITION BY HASH (id);
         CREATE TABLE part PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE TABLE child () INHERITS (base)",
    );
    for relation in [
        "a_view",
        "a_matview",
        "a_sequence",
        "a_type",
        "elsewhere",
        "temporary",
        "base_pkey",
        "part",
        "child",
        "pg_class",
        "information_schema.sql_features",
        "tenancy.tenants",
        "tenancy.plans",
        "tenancy_internal.protected_tables",
    ] {
        let refusal = scene.refuses("42809", &format!("protect_table('{relation}')"));
        assert!(refusal.hint().is_some(), "{refusal:?}");
        scene.refuses("42809", &format!("plan_protection('{relation}')"));
    }
    scene.refuses("42P01", "protect_table('absent')");
    scene.refuses("42704", "protect_table(0::oid::regclass)");
    scene.refuses("42704", "protect_table(4000000000::oid::regclass)");
    scene.refuses("42704", "unprotect_table('base')");
    scene.refuses("42704", "unprotect_table('a_view')");
}

#[test]
fn bad_arguments_are_refused() {
    let scene = Scene::new();
    scene.owner.run("CREATE TABLE t (id int, tenant_id uuid)");
    for call in [
        "protect_table(NULL)",
        "protect_table('t', NULL)",
        "protect_table('t', '')",
        "protect_table('t', access => 'everything')",
        "protect_table('t', access => NULL)",
        "protect_table('t', foreign_keys => 'none')",
        "protect_table('t', foreign_keys => NULL)",
        "protect_table('t', reference => 'trigger')",
        "protect_table('t', reference => NULL)",
        "protect_table('t', open_policy => NULL)",
        "protect_table('t', assign_existing_rows_to => '')",
        "plan_protection(NULL)",
        "unprotect_table(NULL)",
        "protect_schema(NULL)",
        "protect_schema('public', access => 'x')",
    ] {
        let refusal = scene.refuses("22023", call);
        assert!(refusal.hint().is_some(), "{refusal:?}");
    }
    scene.refuses("42704", "protect_schema('absent')");
    // A system column is none of the user's.
    scene.owner.run("INSERT INTO t VALUES (1, NULL)");
    scene.refuses("42703", "protect_table('t', 'ctid')");
}

#[test]
fn only_the_owner_protects_and_unprotects() {
    let scene = Scene::new();
    let other = scene.db.role("other", "");
    scene.superuser.run(&format!("SELECT tenancy.grant_admin('{other}')"));
    let other = scene.db.login(&other);
    scene.owner.run("CREATE TABLE t (id int, tenant_id uuid)");
    other.refused("42501", "SELECT tenancy.protect_table('t')");
    other.refused("42501", "SELECT * FROM tenancy.plan_protection('t')");
    scene.db.login(&scene.app).refused("42501", "SELECT tenancy.protect_table('t')");
    scene.owner.run("SELECT tenancy.protect_table('t')");
    other.refused("42501", "SELECT tenancy.unprotect_table('t')");
    scene.owner.sees("SELECT is_enforced FROM tenancy.protected_tables", &["t"]);
    // A partition of somebody else's makes the whole somebody else's.
    scene.superuser.run(&format!(
        "CREATE TABLE p (id int, tenant_id uuid) PARTITION BY LIST (id); ALTER TABLE p OWNER TO {};
         CREATE TABLE p1 PARTITION OF p DEFAULT",
        scene.owner_role
    ));
    scene.owner.refused("42501", "SELECT tenancy.protect_table('p')");
}

#[test]
fn the_plan_run_by_hand_does_what_protect_table_does() {
    let scene = Scene::new();
    let make = |schema: &str| {
        scene.superuser.run(&format!("CREATE SCHEMA {schema} AUTHORIZATION {}", scene.owner_role));
        scene.owner.run(&format!(
            "SET search_path = {schema};
             CREATE TABLE projects (id int PRIMARY KEY, tenant_id uuid NOT NULL, parent int REFERENCES projects);
             CREATE TABLE tasks (id int PRIMARY KEY, tenant_id uuid, project int REFERENCES projects ON DELETE CASCADE);
             CREATE TABLE events (id int, kind int, tenant_id uuid) PARTITION BY LIST (kind);
             CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
             CREATE TABLE bare (id int);
             INSERT INTO projects VALUES (1, '{red}', NULL), (2, '{red}', 1);
             INSERT INTO tasks VALUES (1, NULL, 1), (2, '{red}', 2);
             INSERT INTO bare VALUES (1);
             RESET search_path",
            red = scene.red.id
        ));
    };
    make("called");
    make("planned");
    for (table, arguments) in [
        ("projects", ", reference => 'foreign_key'"),
        ("tasks", ", assign_existing_rows_to => 'red'"),
        ("events", ""),
        ("bare", ", assign_existing_rows_to => 'red'"),
    ] {
        scene.owner.run(&format!("SELECT tenancy.protect_table('called.{table}'{arguments})"));
        if table == "tasks" {
            // The key between them is planned once both are on record.
            scene.owner.run("SELECT tenancy.protect_table('planned.projects', reference => 'foreign_key')");
        }
        let statements = scene.owner.rows(&format!(
            "SELECT statement FROM tenancy.plan_protection('planned.{table}'{arguments}) WHERE statement IS NOT NULL ORDER BY step"
        ));
        assert!(!statements.is_empty());
        for statement in statements {
            scene.owner.run(&statement);
        }
    }
    let dump = |schema: &str| {
        let output = scene.db.program("pg_dump").args(["--schema", schema]).output().expect("pg_dump runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8").replace(schema, "schema");
        text.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
    };
    same_text(&dump("called"), &dump("planned"));
}

#[test]
fn a_plan_changes_nothing_and_says_lock_and_reason_of_each_step() {
    let scene = Scene::new();
    scene.owner.run("CREATE TABLE t (id int, tenant_id uuid); INSERT INTO t VALUES (1, NULL)");
    let before = scene.dump();
    scene.owner.run("BEGIN READ ONLY");
    scene.owner.sees(
        "SELECT count(*) > 5, bool_and(step > 0), bool_and(reason <> ''), bool_and(lock <> '' OR statement IS NULL)
           FROM tenancy.plan_protection('t', assign_existing_rows_to => 'red')",
        &["t|t|t|t"],
    );
    // Half of it would not work; the plan shows what protect_table would find.
    scene.owner.sees("SELECT count(*) > 5 FROM tenancy.plan_protection('t')", &["t"]);
    scene.owner.sees("SELECT pg_current_xact_id_if_assigned()", &["NULL"]);
    scene.owner.run("COMMIT");
    same_text(&before, &scene.dump());
}

#[test]
fn a_second_call_does_nothing_and_a_different_one_is_refused() {
    let scene = Scene::new();
    scene
        .owner
        .run("CREATE TABLE t (id int, tenant_id uuid, other_id uuid NOT NULL); SELECT tenancy.protect_table('t')");
    let state = "SELECT string_agg(xmin::text, ',' ORDER BY polname) FROM pg_policy WHERE polrelid = 't'::regclass";
    let before = scene.owner.value(state);
    scene.owner.run("BEGIN; SELECT tenancy.protect_table('t')");
    scene.owner.sees("SELECT mode FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock'", &[]);
    scene.owner.run("COMMIT");
    scene.owner.sees(state, &[&before]);
    for other in ["access => 'shared'", "access => 'reference'", "tenant_column => 'other_id'"] {
        let refusal = scene.owner.refused("42710", &format!("SELECT tenancy.protect_table('t', {other})"));
        assert!(refusal.hint().is_some_and(|hint| hint.contains("unprotect_table")), "{refusal:?}");
    }
    // More protection may be asked for later; the companion may go.
    scene.owner.run("SELECT tenancy.protect_table('t', reference => 'foreign_key')");
    scene.owner.sees("SELECT reference FROM tenancy.protected_tables", &["foreign_key"]);
    scene.owner.sees("SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'f'", &["1"]);
    scene.owner.run("SELECT tenancy.protect_table('t', reference => 'foreign_key', open_policy => false)");
    scene.begin_as("red").sees("SELECT id FROM t", &[]);
}

#[test]
fn damage_is_shown_and_mended_by_protecting_again() {
    let scene = Scene::new();
    scene.owner.run("CREATE TABLE t (id int, tenant_id uuid); SELECT tenancy.protect_table('t')");
    let whole = scene.dump();
    let opening = [
        "ALTER TABLE t DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE t NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY tenancy_isolation ON t",
        "ALTER POLICY tenancy_isolation ON t USING (true)",
        "ALTER POLICY tenancy_isolation ON t WITH CHECK (true)",
        "ALTER POLICY tenancy_isolation ON t TO CURRENT_USER",
        "DROP POLICY tenancy_isolation_delete ON t",
        "DROP TRIGGER tenancy_truncate_guard ON t",
        "ALTER TABLE t DISABLE TRIGGER tenancy_truncate_guard",
    ];
    let inconvenient = [
        "ALTER TABLE t ALTER COLUMN tenant_id DROP NOT NULL",
        "ALTER TABLE t ALTER COLUMN tenant_id DROP DEFAULT",
        "DROP INDEX t_tenant_id_idx",
    ];
    for damage in opening.iter().chain(&inconvenient) {
        scene.owner.run(damage);
        assert_ne!(whole, scene.dump());
        let enforced = scene.owner.value("SELECT is_enforced FROM tenancy.protected_tables");
        assert_eq!(enforced == "f", opening.contains(damage), "{damage}: is_enforced is {enforced}");
        scene.owner.run("SELECT tenancy.protect_table('t')");
        same_text(&whole, &scene.dump());
        scene.owner.sees("SELECT is_enforced FROM tenancy.protected_tables", &["t"]);
    }
}

#[test]
fn unprotecting_puts_back_exactly_what_was_there() {
    let scene = Scene::new();
    scene.owner.run(&format!(
        "CREATE TABLE plain (id int, tenant_id uuid);
         CREATE TABLE strict (id int, tenant_id uuid NOT NULL);
         CREATE TABLE with_default (id int, tenant_id uuid DEFAULT '{red}'::uuid);
         CREATE TABLE with_index (id int, tenant_id uuid, UNIQUE (tenant_id, id));
         CREATE TABLE with_rls (id int, tenant_id uuid); ALTER TABLE with_rls ENABLE ROW LEVEL SECURITY;
         CREATE TABLE with_force (id int, tenant_id uuid);
         ALTER TABLE with_force ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE TABLE only_force (id int, tenant_id uuid); ALTER TABLE only_force FORCE ROW LEVEL SECURITY;
         CREATE TABLE with_policies (id int, tenant_id uuid); ALTER TABLE with_policies ENABLE ROW LEVEL SECURITY;
         CREATE POLICY mine ON with_policies USING (id > 0); CREATE POLICY mine_too ON with_policies AS RESTRICTIVE USING (id > 1);
         CREATE TABLE with_trigger (id int, tenant_id uuid);
         CREATE TRIGGER mine BEFORE UPDATE ON with_trigger FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
         CREATE TABLE parted (id int, tenant_id uuid) PARTITION BY HASH (id);
         CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY LIST (id);
         CREATE TABLE parted_1_all PARTITION OF parted_1 DEFAULT;
         ALTER TABLE parted_0 ALTER COLUMN tenant_id SET DEFAULT '{blue}', ENABLE ROW LEVEL SECURITY;
         CREATE INDEX ON parted_0 (tenant_id);
         CREATE TABLE base (id int, tenant_id uuid);
         CREATE TABLE derived (extra int) INHERITS (base);
         ALTER TABLE derived ALTER COLUMN tenant_id SET NOT NULL, ALTER COLUMN tenant_id SET DEFAULT '{blue}'",
        red = scene.red.id,
        blue = scene.blue.id
    ));
    let tables = [
        "plain",
        "strict",
        "with_default",
        "with_index",
        "with_rls",
        "with_force",
        "only_force",
        "with_policies",
        "with_trigger",
        "parted",
        "base",
    ];
    let before = scene.dump();
    for arguments in [
        "",
        ", access => 'shared'",
        ", access => 'reference'",
        ", reference => 'foreign_key'",
        ", open_policy => false",
    ] {
        for table in tables {
            scene.owner.run(&format!("SELECT tenancy.protect_table('{table}'{arguments})"));
            scene.has_nothing_left_to_do(table, arguments);
        }
        assert_ne!(before, scene.dump());
        for table in tables {
            scene.owner.run(&format!("SELECT tenancy.unprotect_table('{table}')"));
        }
        same_text(&before, &scene.dump());
        scene.owner.sees("SELECT relation FROM tenancy.protected_tables", &[]);
    }
}

#[test]
fn foreign_keys_between_protected_tables_get_the_tenant_and_lose_it_again() {
    let scene = Scene::new();
    scene.owner.run(&format!(
        "CREATE TABLE a (id int PRIMARY KEY, tenant_id uuid NOT NULL, code text, UNIQUE (code, id),
                         parent int CONSTRAINT self REFERENCES a ON DELETE CASCADE DEFERRABLE);
         CREATE TABLE b (id int, tenant_id uuid NOT NULL, a int,
                         CONSTRAINT \"Odd name\" FOREIGN KEY (a) REFERENCES a ON UPDATE CASCADE ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE c (id int, tenant_id uuid NOT NULL, code text, a int, FOREIGN KEY (code, a) REFERENCES a (code, id),
                         again int REFERENCES a);
         INSERT INTO a VALUES (1, '{red}', 'x', 1), (2, '{blue}', 'y', 2); INSERT INTO b VALUES (1, '{red}', 1);
         INSERT INTO c VALUES (1, '{blue}', 'y', 2, 2), (2, '{red}', 'x', 1, NULL)",
        red = scene.red.id,
        blue = scene.blue.id
    ));
    let keys = "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint
                 WHERE contype = 'f' AND conrelid IN ('a'::regclass, 'b'::regclass, 'c'::regclass) ORDER BY conrelid::regclass::text, conname";
    let scoped = [
        "a|self|FOREIGN KEY (tenant_id, parent) REFERENCES a(tenant_id, id) ON DELETE CASCADE DEFERRABLE",
        "b|Odd name|FOREIGN KEY (tenant_id, a) REFERENCES a(tenant_id, id) ON UPDATE CASCADE ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED",
        "c|c_again_fkey|FOREIGN KEY (tenant_id, again) REFERENCES a(tenant_id, id)",
        "c|c_code_a_fkey|FOREIGN KEY (tenant_id, code, a) REFERENCES a(tenant_id, code, id)",
    ];
    let before = scene.dump();
    for order in [["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"]] {
        for table in order {
            scene.owner.run(&format!("SELECT tenancy.protect_table('{table}')"));
        }
        scene.owner.sees(keys, &scoped);
        for table in order {
            scene.has_nothing_left_to_do(table, "");
        }
        for table in order {
            scene.owner.run(&format!("SELECT tenancy.unprotect_table('{table}')"));
        }
        same_text(&before, &scene.dump());
    }
}

#[test]
fn foreign_keys_of_every_kind_are_scoped_or_told_of_and_come_back() {
    let scene = Scene::new();
    scene.owner.run(
        "CREATE TABLE one (id int PRIMARY KEY, tenant_id uuid NOT NULL);
         CREATE TABLE parted (id int, k int, tenant_id uuid NOT NULL, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
         CREATE TABLE children (id int, k int, tenant_id uuid NOT NULL, a int, b int, FOREIGN KEY (a, b) REFERENCES parted)
             PARTITION BY LIST (k);
         CREATE TABLE children_1 PARTITION OF children DEFAULT;
         CREATE TABLE full_of_two (tenant_id uuid NOT NULL, a int, b int, FOREIGN KEY (a, b) REFERENCES parted MATCH FULL);
         CREATE TABLE full_of_one (tenant_id uuid NOT NULL, o int REFERENCES one MATCH FULL);
         CREATE TABLE unchecked (tenant_id uuid NOT NULL, o int);
         ALTER TABLE unchecked ADD CONSTRAINT later FOREIGN KEY (o) REFERENCES one NOT VALID;
         CREATE TABLE other_key (tenant_code text NOT NULL, o int REFERENCES one);
         CREATE TABLE shared (tenant_id uuid, o int REFERENCES one);
         CREATE UNIQUE INDEX ON one (tenant_id, id);
         CREATE TABLE by_hand (tenant_id uuid NOT NULL, o int, FOREIGN KEY (tenant_id, o) REFERENCES one (tenant_id, id));
         CREATE TABLE base (tenant_id uuid NOT NULL);
         CREATE TABLE derived (o int REFERENCES one) INHERITS (base)",
    );
    let before = scene.dump();
    let tables = [
        "one",
        "parted",
        "children",
        "full_of_two",
        "full_of_one",
        "unchecked",
        "other_key",
        "shared",
        "by_hand",
        "base",
    ];
    for order in [tables.to_vec(), tables.into_iter().rev().collect()] {
        for table in &order {
            let arguments = match *table {
                "other_key" => ", 'tenant_code'",
                "shared" => ", access => 'shared'",
                _ => "",
            };
            scene.owner.run(&format!("SELECT tenancy.protect_table('{table}'{arguments})"));
        }
        scene.owner.sees(
        "SELECT conrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint
          WHERE contype = 'f' AND conparentid = 0 AND connamespace = 'public'::regnamespace ORDER BY conrelid::regclass::text",
        &[
            "by_hand|FOREIGN KEY (tenant_id, o) REFERENCES one(tenant_id, id)",
            "children|FOREIGN KEY (tenant_id, a, b) REFERENCES parted(tenant_id, id, k)",
            "derived|FOREIGN KEY (tenant_id, o) REFERENCES one(tenant_id, id)",
            "full_of_one|FOREIGN KEY (tenant_id, o) REFERENCES one(tenant_id, id)",
            "full_of_two|FOREIGN KEY (a, b) REFERENCES parted(id, k) MATCH FULL",
            "other_key|FOREIGN KEY (o) REFERENCES one(id)",
            "shared|FOREIGN KEY (o) REFERENCES one(id)",
            "unchecked|FOREIGN KEY (tenant_id, o) REFERENCES one(tenant_id, id) NOT VALID",
        ],
    );
        // Each key that stays open is told of, by the plan of either end.
        for (table, key) in
            [("full_of_two", "full_of_two_a_b_fkey"), ("parted", "full_of_two_a_b_fkey"), ("one", "shared_o_fkey")]
        {
            scene.owner.sees(
            &format!(
                "SELECT count(*) FROM tenancy.plan_protection('{table}') WHERE action = 'note' AND reason LIKE '%{key}%another tenant%'"
            ),
            &["1"],
        );
        }
        for table in &order {
            scene.owner.run(&format!("SELECT tenancy.unprotect_table('{table}')"));
        }
        same_text(&before, &scene.dump());
    }
}

#[test]
fn unprotecting_takes_what_is_left_when_the_user_removed_some() {
    let scene = Scene::new();
    for damage in [
        "DROP INDEX t_tenant_id_idx",
        "ALTER INDEX t_tenant_id_idx RENAME TO mine",
        "DROP POLICY tenancy_isolation ON t",
        "DROP TRIGGER tenancy_truncate_guard ON t",
        "ALTER TABLE t DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE t DROP CONSTRAINT tenancy_tenant_fkey",
        "ALTER TABLE t DROP COLUMN tenant_id CASCADE",
        "ALTER TABLE t RENAME COLUMN tenant_id TO whose",
        "ALTER TABLE t ALTER COLUMN tenant_id DROP NOT NULL, ALTER COLUMN tenant_id DROP DEFAULT",
        "ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t",
    ] {
        scene.owner.run(
            "CREATE TABLE t (id int, tenant_id uuid); SELECT tenancy.protect_table('t', reference => 'foreign_key')",
        );
        scene.owner.run(damage);
        scene.owner.run("SELECT tenancy.unprotect_table('t')");
        scene.owner.sees(
            "SELECT relrowsecurity, relforcerowsecurity, (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid),
                    (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid), (SELECT count(*) FROM pg_attrdef WHERE adrelid = c.oid)
               FROM pg_class c WHERE c.oid = 't'::regclass",
            &["f|f|0|0|0"],
        );
        scene.owner.sees("SELECT relation FROM tenancy.protected_tables", &[]);
        scene.owner.run("DROP TABLE t");
    }
}

#[test]
fn a_partition_that_comes_or_goes_is_met_by_the_next_call() {
    let scene = Scene::new();
    scene.owner.run(
        "CREATE TABLE t (id int, tenant_id uuid) PARTITION BY LIST (id); CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1);
         SELECT tenancy.protect_table('t');
         CREATE TABLE t_2 PARTITION OF t FOR VALUES IN (2); CREATE TABLE t_3 (id int, tenant_id uuid NOT NULL);
         ALTER TABLE t ATTACH PARTITION t_3 FOR VALUES IN (3);
         SELECT tenancy.protect_table('t')",
    );
    scene.has_nothing_left_to_do("t", "");
    scene.owner.sees(
        "SELECT relation, is_enforced FROM tenancy.protected_tables ORDER BY relation::text",
        &["t|t", "t_1|t", "t_2|t", "t_3|t"],
    );
    scene.owner.run("ALTER TABLE t DETACH PARTITION t_1");
    scene.begin_as("red").sees("SELECT id FROM t_1", &[]);
    scene.db.login(&scene.app).refused("55000", "SELECT id FROM t_1");
    // Detached, it is a table of its own: it can be protected as one, and unprotected.
    scene.owner.run("SELECT tenancy.protect_table('t_1'); SELECT tenancy.unprotect_table('t_1')");
    scene.owner.run("SELECT tenancy.unprotect_table('t')");
    scene.owner.sees("SELECT relation FROM tenancy.protected_tables", &[]);
    scene.owner.sees("SELECT relname FROM pg_class WHERE relname ~ '^t_[0-9]' AND relrowsecurity", &[]);
}

#[test]
fn a_foreign_partition_stops_the_whole_with_a_clear_word() {
    let scene = Scene::new();
    scene.superuser.run(&format!(
        "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER files FOREIGN DATA WRAPPER nothing;
         CREATE TABLE t (id int, tenant_id uuid) PARTITION BY LIST (id);
         CREATE FOREIGN TABLE t_1 PARTITION OF t FOR VALUES IN (1) SERVER files;
         ALTER TABLE t OWNER TO {0}; ALTER FOREIGN TABLE t_1 OWNER TO {0}",
        scene.owner_role
    ));
    let refusal = scene.superuser.refused("42809", "SELECT tenancy.protect_table('t')");
    assert!(refusal.message().contains("t_1"), "{refusal:?}");
    scene.superuser.sees("SELECT relation FROM tenancy.protected_tables", &[]);
    scene.superuser.sees("SELECT relrowsecurity FROM pg_class WHERE oid = 't'::regclass", &["f"]);
}

#[test]
fn kept_foreign_keys_are_told_of() {
    let scene = Scene::new();
    scene.owner.run(
        "CREATE TABLE a (id int PRIMARY KEY, tenant_id uuid NOT NULL);
         CREATE TABLE b (id int, tenant_id uuid NOT NULL, a int REFERENCES a);
         SELECT tenancy.protect_table('a'); SELECT tenancy.protect_table('b', foreign_keys => 'keep')",
    );
    let notices = scene.owner.notices();
    assert!(notices.iter().any(|notice| notice.message().contains("b_a_fkey")), "{notices:?}");
    scene.owner.sees(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'b_a_fkey'",
        &["FOREIGN KEY (a) REFERENCES a(id)"],
    );
    scene.owner.sees("SELECT action FROM tenancy.plan_protection('b', foreign_keys => 'keep')", &["note"]);
    // Changed minds: the next call makes it composite.
    scene.owner.run("SELECT tenancy.protect_table('b')");
    scene.owner.sees(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'b_a_fkey'",
        &["FOREIGN KEY (tenant_id, a) REFERENCES a(tenant_id, id)"],
    );
}

#[test]
fn rows_that_cross_tenants_already_are_found() {
    let scene = Scene::new();
    scene.owner.run(&format!(
        "CREATE TABLE a (id int PRIMARY KEY, tenant_id uuid NOT NULL);
         CREATE TABLE b (id int, tenant_id uuid NOT NULL, a int REFERENCES a);
         INSERT INTO a VALUES (1, '{red}'); INSERT INTO b VALUES (1, '{blue}', 1), (2, '{red}', 1)",
        red = scene.red.id,
        blue = scene.blue.id
    ));
    scene.owner.run("SELECT tenancy.protect_table('a')");
    let before = scene.dump();
    let refusal = scene.owner.refused("23503", "SELECT tenancy.protect_table('b')");
    assert!(refusal.detail().is_some_and(|detail| detail.contains("b_a_fkey")), "{refusal:?}");
    same_text(&before, &scene.dump());
    scene.owner.run("SELECT tenancy.protect_table('b', foreign_keys => 'keep')");
}

#[test]
fn a_users_permissive_policies_are_respected_and_restricted() {
    let scene = Scene::new();
    scene.owner.run(&format!(
        "CREATE TABLE t (id int, tenant_id uuid, hidden boolean NOT NULL); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY not_hidden ON t USING (NOT hidden);
         INSERT INTO t VALUES (1, '{red}', false), (2, '{red}', true), (3, '{blue}', false);
         SELECT tenancy.protect_table('t')",
        red = scene.red.id,
        blue = scene.blue.id
    ));
    scene.owner.sees("SELECT polname FROM pg_policy WHERE polrelid = 't'::regclass AND polpermissive", &["not_hidden"]);
    scene.begin_as("red").sees("SELECT id FROM t", &["1"]);
    // The last of his own gone, protecting again puts the companion there; a new one takes it away.
    scene.owner.run("DROP POLICY not_hidden ON t");
    scene.begin_as("red").sees("SELECT id FROM t", &[]);
    scene.owner.run("SELECT tenancy.protect_table('t')");
    scene.begin_as("red").sees("SELECT id FROM t ORDER BY id", &["1", "2"]);
    scene.owner.run("CREATE POLICY not_hidden ON t USING (NOT hidden); SELECT tenancy.protect_table('t')");
    scene.begin_as("red").sees("SELECT id FROM t", &["1"]);
    scene.owner.run("DROP POLICY not_hidden ON t; CREATE POLICY shown ON t AS RESTRICTIVE USING (NOT hidden)");
    scene.owner.run("SELECT tenancy.protect_table('t')");
    scene.begin_as("red").sees("SELECT id FROM t", &["1"]);
}

#[test]
fn nasty_names_are_names_like_others() {
    let scene = Scene::new();
    for name in NASTY_NAMES {
        let tenant = scene.db.tenant(name);
        let quoted = quote_ident(name);
        let role = scene.db.role(name, "");
        scene.superuser.run(&format!(
            "CREATE SCHEMA {quoted} AUTHORIZATION {role}; GRANT USAGE ON SCHEMA {quoted} TO {};
             SELECT tenancy.grant_admin({}::regrole)",
            scene.app,
            quote_literal(&role.to_string())
        ));
        let owner = scene.db.login(&role);
        let (parent, child) = (format!("{quoted}.{quoted}"), format!("{quoted}.\"child <\"\"\""));
        owner.run(&format!(
            "CREATE TABLE {parent} ({quoted} text NOT NULL, id int PRIMARY KEY);
             CREATE TABLE {child} ({quoted} text NOT NULL, parent int CONSTRAINT {quoted} REFERENCES {parent});
             INSERT INTO {parent} VALUES ({0}, 1), ('red', 2);
             GRANT ALL ON {parent}, {child} TO {1}",
            quote_literal(name),
            scene.app
        ));
        let before = scene.dump();
        for table in [&parent, &child] {
            let arguments = format!("{}, {}, reference => 'foreign_key'", quote_literal(table), quote_literal(name));
            owner.run(&format!("SELECT count(*) FROM tenancy.plan_protection({arguments})"));
            owner.run(&format!("SELECT tenancy.protect_table({arguments})"));
            owner.sees(&format!("SELECT statement FROM tenancy.plan_protection({arguments})"), &[]);
        }
        let session = scene.begin_as(name);
        session.sees(&format!("SELECT {quoted}, id FROM {parent}"), &[&format!("{name}|1")]);
        session.refused("23503", &format!("INSERT INTO {child} (parent) VALUES (2)"));
        session.run("ROLLBACK");
        for key in [name, &tenant.id.to_string(), &tenant.number.to_string()] {
            session.run("BEGIN");
            session.query("SELECT set_config('app.current_tenant_id', $1, true)", &[&key]);
            session.sees(&format!("SELECT id FROM {parent}"), &["1"]);
            session.sees("SELECT tenancy.current_tenant_code()", &[name]);
            session.run("COMMIT");
        }
        session.refused("42501", &format!("TRUNCATE {parent} CASCADE"));
        for table in [&child, &parent] {
            owner.run(&format!("SELECT tenancy.unprotect_table({})", quote_literal(table)));
        }
        same_text(&before, &scene.dump());
        owner.sees(
            &format!("SELECT outcome, count(*) FROM tenancy.protect_schema({0}, {0}) GROUP BY 1", quote_literal(name)),
            &["protected|2"],
        );
    }
}

#[test]
fn a_whole_schema_is_protected_and_the_rest_explained() {
    let scene = Scene::new();
    scene.superuser.run(&format!("CREATE SCHEMA shop AUTHORIZATION {}", scene.owner_role));
    scene.owner.run(
        "SET search_path = shop;
         CREATE TABLE zones (id int PRIMARY KEY, tenant_id uuid);
         CREATE TABLE areas (id int, tenant_id uuid, zone int REFERENCES zones);
         CREATE TABLE settings (id int);
         CREATE TABLE logs (id int, tenant_id uuid) PARTITION BY HASH (id);
         CREATE TABLE logs_0 PARTITION OF logs FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE MATERIALIZED VIEW zone_copy AS SELECT * FROM zones;
         CREATE VIEW zone_view AS SELECT * FROM zones;
         RESET search_path",
    );
    let outcomes =
        "SELECT relation, outcome, reason IS NOT NULL FROM tenancy.protect_schema('shop') ORDER BY relation::text";
    for outcome in ["protected", "already protected"] {
        scene.owner.sees(
            outcomes,
            &[
                &format!("shop.areas|{outcome}|f"),
                &format!("shop.logs|{outcome}|f"),
                &format!("shop.logs_0|{outcome}|t"),
                "shop.settings|left|t",
                "shop.zone_copy|left|t",
                &format!("shop.zones|{outcome}|f"),
            ],
        );
    }
    scene.owner.sees(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'areas_zone_fkey'",
        &["FOREIGN KEY (tenant_id, zone) REFERENCES shop.zones(tenant_id, id)"],
    );
}

#[test]
fn a_table_in_the_way_of_a_whole_schema_leaves_all_as_it_was() {
    let scene = Scene::new();
    scene.superuser.run(&format!("CREATE SCHEMA shop AUTHORIZATION {}", scene.owner_role));
    scene.owner.run(
        "CREATE TABLE shop.fine (id int, tenant_id uuid);
         CREATE TABLE shop.wrong (id int, tenant_id uuid); INSERT INTO shop.wrong VALUES (1, gen_random_uuid())",
    );
    scene.refuses("23503", "protect_schema('shop')");
}

#[test]
fn a_lock_that_is_not_free_in_time_stops_all() {
    let scene = Scene::new();
    scene.owner.run("CREATE TABLE t (id int, tenant_id uuid)");
    let reader = scene.db.admin();
    reader.run("BEGIN; SELECT FROM t");
    scene.owner.run("SET lock_timeout = '100ms'");
    scene.refuses("55P03", "protect_table('t')");
    scene.refuses("55P03", "protect_schema('public')");
    reader.run("COMMIT");
    scene.owner.run("SELECT tenancy.protect_table('t')");
    reader.run("BEGIN; SELECT FROM t");
    scene.owner.refused("55P03", "SELECT tenancy.unprotect_table('t')");
    scene.owner.sees("SELECT is_enforced FROM tenancy.protected_tables", &["t"]);
    // What is there already needs no lock.
    scene.owner.run("SELECT tenancy.protect_table('t')");
}

#[test]
fn two_who_protect_at_once_do_it_once() {
    let scene = Scene::new();
    scene.owner.run("CREATE TABLE t (id int, tenant_id uuid)");
    let first = scene.db.login(&scene.owner_role);
    first.run("BEGIN; SELECT tenancy.protect_table('t')");
    let second = scene.db.login(&scene.owner_role);
    let pid = second.pid();
    let waiting = std::thread::spawn(move || {
        second.try_run("SELECT tenancy.protect_table('t')").map_err(|error| error.to_string())
    });
    let is_waiting = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted");
    while scene.superuser.value(&is_waiting) == "0" {
        assert!(!waiting.is_finished(), "the second was to wait for the first");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    first.run("COMMIT");
    assert_eq!(waiting.join().expect("it does not panic"), Ok(()));
    scene.owner.sees("SELECT relation, is_enforced FROM tenancy.protected_tables", &["t|t"]);
    scene.has_nothing_left_to_do("t", "");
}

#[test]
fn a_rollback_takes_the_protection_back() {
    let scene = Scene::new();
    scene.owner.run("CREATE TABLE t (id int, tenant_id uuid)");
    let before = scene.dump();
    scene.owner.run("BEGIN; SELECT tenancy.protect_table('t'); ROLLBACK");
    scene.owner.run("BEGIN; SAVEPOINT s; SELECT tenancy.protect_table('t'); ROLLBACK TO s; COMMIT");
    same_text(&before, &scene.dump());
    scene.owner.sees("SELECT relation FROM tenancy.protected_tables", &[]);
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        scene.owner.run(&format!("BEGIN ISOLATION LEVEL {level}; SELECT tenancy.protect_table('t')"));
        scene.owner.sees("SELECT is_enforced FROM tenancy.protected_tables", &["t"]);
        scene.owner.run("SELECT tenancy.unprotect_table('t'); COMMIT");
    }
    same_text(&before, &scene.dump());
}

#[test]
fn the_list_follows_tables_that_are_renamed_moved_and_dropped() {
    let scene = Scene::new();
    scene.superuser.run(&format!("CREATE SCHEMA attic AUTHORIZATION {}", scene.owner_role));
    scene.owner.run(
        "CREATE TABLE t (id int, tenant_id uuid) PARTITION BY HASH (id);
         CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         SELECT tenancy.protect_table('t');
         ALTER TABLE t RENAME COLUMN tenant_id TO whose; ALTER TABLE t RENAME TO u; ALTER TABLE u SET SCHEMA attic",
    );
    scene.owner.sees(
        "SELECT relation, tenant_column, tenant_key, is_enforced, part_of FROM tenancy.protected_tables ORDER BY relation::text",
        &["attic.u|whose|id|t|NULL", "t_0|whose|id|t|attic.u"],
    );
    scene.has_nothing_left_to_do("attic.u", ", 'whose'");
    scene.owner.run("DROP TABLE t_0");
    scene.owner.sees("SELECT relation FROM tenancy.protected_tables", &["attic.u"]);
    scene.owner.run("DROP SCHEMA attic CASCADE");
    scene.owner.sees("SELECT relation FROM tenancy.protected_tables", &[]);
    scene.owner.run("CREATE TABLE v (id int, tenant_id uuid); SELECT tenancy.protect_table('v')");
    scene.superuser.run(&format!("DROP OWNED BY {}", scene.owner_role));
    scene.superuser.sees("SELECT relation FROM tenancy.protected_tables", &[]);
}

#[test]
fn a_superuser_protects_what_others_own_and_they_unprotect_it() {
    let scene = Scene::new();
    scene.owner.run("CREATE TABLE t (id int, tenant_id uuid)");
    let before = scene.dump();
    scene.superuser.run("SELECT tenancy.protect_table('t')");
    scene.owner.sees("SELECT tableowner FROM pg_tables WHERE tablename = 't'", &[scene.owner_role.name()]);
    scene.owner.run("SELECT tenancy.unprotect_table('t')");
    same_text(&before, &scene.dump());
}

#[test]
fn columns_the_server_computes_are_refused_or_left_to_it() {
    let scene = Scene::new();
    scene.owner.run(&format!(
        "CREATE TABLE g (id int, owner_no int, tenant_no int GENERATED ALWAYS AS (owner_no) STORED);
         CREATE TABLE i (id int, tenant_no int GENERATED ALWAYS AS IDENTITY);
         INSERT INTO g (id, owner_no) VALUES (1, {})",
        scene.red.number
    ));
    for table in ["g", "i"] {
        let outcome = scene.owner.try_run(&format!("SELECT tenancy.protect_table('{table}', 'tenant_no')"));
        if let Err(refusal) = outcome {
            let code = refusal.code().map(|code| code.code().to_owned()).unwrap_or_default();
            assert!(["42601", "0A000", "428C9"].contains(&code.as_str()), "{refusal:?}");
        } else {
            scene.has_nothing_left_to_do(table, ", 'tenant_no'");
        }
    }
}

#[test]
fn policies_and_triggers_of_ours_by_name_only_are_the_users_and_come_back() {
    let scene = Scene::new();
    scene.owner.run(
        "CREATE TABLE t (id int, tenant_id uuid);
         CREATE POLICY tenancy_open ON t USING (id > 0);
         CREATE TRIGGER tenancy_truncate_guard BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    );
    let before = scene.dump();
    // Refusing is as good as putting back; losing them silently is not.
    if scene.owner.try_run("SELECT tenancy.protect_table('t')").is_ok() {
        scene.owner.run("SELECT tenancy.unprotect_table('t')");
    }
    same_text(&before, &scene.dump());
}

#[test]
fn a_database_in_another_encoding_is_refused_at_once() {
    let cluster = Cluster::shared();
    for encoding in ["SQL_ASCII", "LATIN1", "EUC_JP"] {
        let name = format!("{}_{encoding}", Db::bare().name()).to_lowercase();
        cluster.superuser().run(&format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        ));
        let session = Session::open(cluster.config("postgres", &name)).expect("a superuser connects");
        let refusal = session.refused("0A000", "CREATE EXTENSION pg_tenancy");
        assert!(refusal.hint().is_some_and(|hint| hint.contains("UTF8")), "{refusal:?}");
        drop(session);
        cluster.superuser().run(&format!("DROP DATABASE {name} WITH (FORCE)"));
    }
}

#[test]
fn triggers_rules_and_views_of_the_user_live_on() {
    let scene = Scene::new();
    scene.owner.run(
        &format!(
            "CREATE TABLE t (id int, tenant_id uuid, note text);
         CREATE TABLE journal (id int, who text);
         CREATE FUNCTION write_down() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN INSERT INTO journal VALUES (NEW.id, tenancy.current_tenant_code()); RETURN NEW; END $$;
         CREATE TRIGGER write_down AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION write_down();
         CREATE VIEW notes WITH (security_barrier) AS SELECT id, note FROM t;
         INSERT INTO t VALUES (1, '{red}', 'old') ",
            red = scene.red.id
        )
        .replace("INSERT INTO t VALUES (1", "ALTER TABLE t DISABLE TRIGGER write_down; INSERT INTO t VALUES (1"),
    );
    scene.owner.run("ALTER TABLE t ENABLE TRIGGER write_down; SELECT tenancy.protect_table('t')");
    let red = scene.begin_as("red");
    red.run("INSERT INTO t (id, note) VALUES (2, 'new'); COMMIT");
    scene.superuser.sees("SELECT * FROM journal", &["2|red"]);
    scene.begin_as("red").sees("SELECT note FROM notes ORDER BY id", &["old", "new"]);
    scene.begin_as("blue").sees("SELECT note FROM notes", &[]);
}

#[test]
fn plans_keep_the_shape_they_have_with_a_condition_written_by_hand() {
    let scene = Scene::new();
    scene.owner.run(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, tenant_id uuid NOT NULL, amount int);
         INSERT INTO t SELECT n, CASE WHEN n % 5 < 3 THEN '{red}' ELSE '{blue}' END::uuid, n FROM generate_series(1, 20000) n;
         CREATE TABLE h (id int, tenant_id uuid NOT NULL) PARTITION BY HASH (tenant_id)",
        red = scene.red.id,
        blue = scene.blue.id
    ));
    for partition in 0..8 {
        scene.owner.run(&format!(
            "CREATE TABLE h_{partition} PARTITION OF h FOR VALUES WITH (MODULUS 8, REMAINDER {partition})"
        ));
    }
    scene.owner.run("SELECT tenancy.protect_table('t'); SELECT tenancy.protect_table('h')");
    scene.superuser.run("ANALYZE t; ANALYZE h");
    let session = scene.begin_as("red");
    let by_hand = |query: &str| {
        let literal = format!("'{}'::uuid", scene.red.id);
        scene.superuser.explain(&query.replace("WHERE", &format!("WHERE tenant_id = {literal} AND")))
    };
    let shape = |plan: &str| {
        plan.lines().filter(|line| line.contains("->") || !line.starts_with(' ')).collect::<Vec<_>>().join("\n")
    };
    for query in [
        "SELECT * FROM t WHERE id = 7",
        "SELECT * FROM t WHERE true ORDER BY id LIMIT 50",
        "SELECT sum(amount) FROM t WHERE amount < 100",
        "SELECT count(*) FROM t WHERE true",
    ] {
        assert_eq!(shape(&session.explain(query)), shape(&by_hand(query)), "{query}");
    }
    // Row estimates know the tenant: 60 % of the rows.
    let estimate = session.rows("EXPLAIN SELECT * FROM t").join(" ");
    let rows: f64 = estimate
        .split("rows=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|n| n.parse().ok())
        .expect(&estimate);
    assert!((6000.0..24000.0).contains(&rows), "{estimate}");
    // One partition is scanned, whichever way the others are left out.
    let plan = session.rows("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM h").join("\n");
    assert!(plan.contains("Subplans Removed: 7") || plan.matches("Scan on h_").count() == 1, "{plan}");
    // Parallel plans stay parallel.
    session.run(
        "SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0;
         SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexonlyscan = off",
    );
    let plan = session.explain("SELECT sum(amount) FROM t");
    assert!(plan.contains("Gather"), "{plan}");
    session.sees("SELECT count(*) FROM t", &["12000"]);
}
