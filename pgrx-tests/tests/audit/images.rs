//! What is kept of rows is bytes that PostgreSQL takes on trust: nobody hands any to what reads them, and what somebody has
//! changed in the log is an error, whatever it was changed to.

use pg_tenancy_tests::{Cluster, Db, Role, Session};

struct Scene {
    db: Db,
    steward: Role,
    app: Role,
}

impl Scene {
    /// A table of `columns`, audited, with a row of each of two tenants.
    fn with(cluster: &Cluster, columns: &str, insert: &str) -> Self {
        let db = cluster.db();
        let (steward, app) = (db.role("steward", ""), db.application("app"));
        let (red, blue) = (db.tenant("red"), db.tenant("blue"));
        db.admin().run(&format!(
            "SELECT tenancy.grant_admin('{steward}');
             GRANT SELECT ON tenancy.audit_log TO {app};
             GRANT USAGE ON SCHEMA tenancy_internal TO {app};
             CREATE TABLE t (id int PRIMARY KEY, tenant_id uuid, {columns});
             SELECT tenancy.protect_table('t'), tenancy.audit_table('t');
             GRANT SELECT, INSERT, UPDATE ON t TO {app}"
        ));
        db.enter(&app, &red).changes(1, &format!("INSERT INTO t VALUES (1, tenancy.current_tenant_id(), {insert})"));
        db.enter(&app, &blue).changes(1, &format!("INSERT INTO t VALUES (2, tenancy.current_tenant_id(), {insert})"));
        Self { db, steward, app }
    }

    fn steward(&self) -> Session {
        self.db.login(&self.steward)
    }
}

#[test]
fn no_function_for_others_than_superusers_reads_bytes_but_to_make_a_digest_of_them() {
    let scene = Scene::with(&Cluster::shared(), "j jsonb", "'{}'");
    let steward = scene.steward();
    steward.sees(
        "SELECT p.oid::regprocedure FROM pg_proc p
          WHERE p.pronamespace IN ('tenancy'::regnamespace, 'tenancy_internal'::regnamespace)
            AND ARRAY['bytea', 'bytea[]', 'internal', 'cstring']::regtype[]::oid[] && p.proargtypes::oid[]
            AND has_function_privilege(p.oid, 'EXECUTE')",
        &["tenancy_internal.digest(text,bytea[])"],
    );
    // An object of 268,435,455 pairs, in four bytes.
    let forged = r"'\x0001000000' || '\x04ffffff2f'::bytea || '\x0100000000000000'::bytea";
    steward.refused("42883", &format!("SELECT * FROM tenancy_internal.read_images(1, 'I', 1::smallint, {forged})"));
    steward.refused("42501", r#"SELECT tenancy_internal.find_row_key(1, '{"id": 1}')"#);
}

#[test]
fn a_place_of_the_log_tells_nobody_what_the_log_does_not() {
    let scene = Scene::with(&Cluster::shared(), "secret text", "'seen by its tenant'");
    let admin = scene.db.admin();
    let places = admin.rows(
        "SELECT format('%s, %L', c.tableoid, c.ctid) FROM tenancy_internal.audit_chunks c
           JOIN tenancy.tenants t ON t.id = c.tenant_id ORDER BY t.code",
    );
    let [blues, reds] = &places[..] else { panic!("{places:?}") };
    let read = |place: &str| format!("SELECT new_values ->> 'secret' FROM tenancy_internal.read_chunk({place})");
    let app = scene.db.login(&scene.app);
    app.run("BEGIN; SELECT tenancy.set_tenant('red')");
    app.sees(&read(reds), &["seen by its tenant"]);
    app.sees(&read(blues), &[]);
    app.run("ROLLBACK");
    app.sees(&read(reds), &[]);
    let steward = scene.steward();
    steward.sees(&read(blues), &["seen by its tenant"]);
    // What is no place of the log is none.
    let partition = reds.split(',').next().expect("a list");
    for place in [
        "'pg_class'::regclass, '(0,1)'",
        "'t'::regclass, '(0,1)'",
        "'tenancy_internal.audit_chunks'::regclass, '(0,1)'",
        "'tenancy_internal.audit_layouts'::regclass, '(0,1)'",
        "0, '(0,1)'",
        &format!("{partition}, '(0,0)'"),
        &format!("{partition}, '(0,999)'"),
        &format!("{partition}, '(0,65535)'"),
        &format!("{partition}, '(1000000,1)'"),
        &format!("{partition}, '(4294967295,1)'"),
        &format!("{partition}, '(4294967294,65535)'"),
    ] {
        steward.sees(&read(place), &[]);
    }
    steward.refused("22023", "SELECT tenancy_internal.read_chunk(NULL, '(0,1)')");
}

/// Bytes that are hard to foresee, and the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }

    fn changed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(2) {
            let at = self.below(bytes.len());
            let byte = [0, 1, 0x7f, 0x80, 0xff, self.below(256) as u8][self.below(6)];
            match self.below(9) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                2 => bytes.extend((0..self.below(20)).map(|_| byte)),
                _ if bytes.is_empty() => bytes.push(byte),
                3 => drop(bytes.remove(at)),
                _ => bytes[at] = byte,
            }
        }
        bytes
    }
}

#[test]
fn a_log_that_somebody_has_changed_is_an_error_and_never_the_end_of_the_server() {
    let cluster = Cluster::start(&[]);
    // Types that are sound whatever their bytes are.
    let scene = Scene::with(
        &cluster,
        "b bool, s smallint, i int, l bigint, f real, d float8, n name, t text, v varchar, p char(4), y bytea, u uuid,
         m macaddr, r point",
        "true, 1, 2, 3, 4.5, 6.7, 'name', 'text', NULL, 'pad', '\\x00ff', gen_random_uuid(), '08:00:2b:01:02:03', '(1,2)'",
    );
    let admin = scene.db.admin();
    admin.run("UPDATE t SET s = 7, t = 'other' || repeat('x', 300), n = 'longer name'");
    let kept: Vec<Vec<u8>> = admin
        .query("SELECT images FROM tenancy_internal.audit_chunks ORDER BY action, id", &[])
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(kept.len(), 4);
    let (mut dice, mut errors, mut answers) = (Dice(0x7e4a_4c11), 0, 0);
    for _ in 0..1_500 {
        let one = dice.below(kept.len());
        let images = dice.changed(&kept[one]);
        // Mostly what the bytes were, two inserted and two changed rows.
        let (action, rows) = match dice.below(4) {
            0 => (["I", "U", "D"][dice.below(3)], dice.below(3) as i16),
            _ => (if one < 2 { "I" } else { "U" }, 1),
        };
        admin.run("BEGIN");
        admin.query(
            "UPDATE tenancy_internal.audit_chunks SET images = $1, action = $2::text::\"char\", row_count = $3
              WHERE id = (SELECT id FROM tenancy_internal.audit_chunks ORDER BY id LIMIT 1)",
            &[&images, &action, &rows],
        );
        match admin.try_rows("SELECT old_values, new_values, row_key, changed_columns FROM tenancy.audit_log") {
            Ok(_) => answers += 1,
            Err(error) if error.code().is_some() => errors += 1,
            Err(error) => panic!("{error}: {action} of {rows} rows, {images:02x?}"),
        }
        admin.run("ROLLBACK");
    }
    // Both kinds are met: what is not noticed is another value of the type.
    assert!(errors > 300 && answers > 100, "{errors} errors, {answers} answers");
    admin.sees("SELECT count(*) FROM tenancy.audit_log", &["4"]);
}
