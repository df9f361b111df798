//! pg_upgrade to another major takes the registry, the policies, the settings and the audit log along.
//!
//! The run's own server is one end; the other is Debian's PostgreSQL 15, or 18 when the run is on 15 itself. The
//! extension is built for both, so the first run of this test takes a minute.

use std::{fs, path::Path};

use pg_tenancy_tests::{
    Cluster, Db, Session, Shutdown, process,
    server::{Choice, DEFAULT_MAJOR, Server},
    toolchain::{Profile, Toolchain},
};

#[path = "surface/description.rs"]
mod description;
#[path = "dump/world.rs"]
mod world;
use world::{Shop, portrait, same_portraits};

/// Where an upgrade from the default major leads to.
const NEWEST: u32 = 18;
/// The database that `Cluster::db` copies: the extension and nothing else.
const PLAIN: &str = "pg_tenancy_template";

#[test]
fn an_upgraded_server_isolates_as_before() {
    let (from, to) = both_ends();
    let old = Cluster::launch(&from, &[]).unwrap_or_else(|error| panic!("{error:?}"));
    let shop = Shop::in_db(old.db());
    keep_books(&shop);
    let (before, books) = (portrait(&shop.db), books(&shop.db));
    let new = upgraded(&old, &to);
    let db = shop.db.on(&new);

    same_portraits(&before, &portrait(&db));
    same_portraits(&books, &self::books(&db));
    shop.is_isolated_in(&db);
    books_go_on(&shop, &db);

    // It goes on working, too: caches, sequences, event triggers and the record of what was protected.
    let admin = db.admin();
    admin.run("SELECT tenancy.create_tenant('next')");
    admin.sees("SELECT number > 500 FROM tenancy.tenants WHERE code = 'next'", &["t"]);
    admin.run("SELECT tenancy.unprotect_table('shop.orders')");
    admin.sees("SELECT policyname FROM pg_policies WHERE tablename = 'orders'", &[]);
    admin.run("SELECT tenancy.protect_table('shop.orders')");
    shop.is_isolated_in(&db);
    admin.run("DROP TABLE shop.templates");
    admin.sees(
        "SELECT count(*) FROM tenancy_internal.protected_tables p LEFT JOIN pg_class c ON c.oid = p.relation WHERE c.oid IS NULL",
        &["0"],
    );

    assert_eq!(
        description::describe(&plain(&new)),
        description::describe(&fresh(&new)),
        "an upgraded extension is not what a new one is"
    );
}

/// Audits a table, with a history, months that are over and sealed, and a retention.
fn keep_books(shop: &Shop) {
    let dba = shop.db.admin();
    dba.run(
        "SELECT tenancy.audit_table('shop.orders', redact_columns => '{customer}'), tenancy.audit_table('shop.events')",
    );
    let red = shop.db.enter(&shop.app, &shop.red);
    red.run("UPDATE shop.orders SET item = 'pear'");
    red.run(
        "UPDATE shop.orders SET item = 'apple'; UPDATE shop.events SET at = at + 1; UPDATE shop.events SET at = at - 1",
    );
    red.run(r#"SELECT tenancy.log_event('seen', 'report', 'r-7', '{"n": 12345678901234567890.10}')"#);
    dba.run(
        "INSERT INTO tenancy_internal.audit_chunks
             (id, occurred_at, statement_at, transaction_id, tenant_id, layout, command, row_count, action, actor, images)
         SELECT nextval('tenancy_internal.audit_chunk_ids'), c.occurred_at - n * interval '1 day', c.statement_at,
                c.transaction_id, c.tenant_id, c.layout, c.command, c.row_count, c.action, 'ann', c.images
           FROM tenancy_internal.audit_chunks c, generate_series(1, 80) AS n WHERE c.action = 'U'",
    );
    dba.run("SELECT tenancy.set_audit_retention('1 year'), tenancy.set_audit_retention('40 days', 'blue')");
    dba.run("CALL tenancy.maintain_audit()");
    dba.run("CALL tenancy.seal_audit()");
}

/// All that the log and its keeping say, as text.
fn books(db: &Db) -> String {
    let dba = db.admin();
    dba.run("SET timezone = 'UTC'");
    let views = [
        "SELECT * FROM tenancy.audit_log ORDER BY id",
        "SELECT * FROM tenancy.row_history('shop.orders', '{\"id\": 1}')",
        "SELECT tenancy.row_as_of('shop.orders', '{\"id\": 1}', (SELECT max(occurred_at) FROM tenancy.row_history('shop.orders', '{\"id\": 1}') WHERE new_values ->> 'item' = 'pear'))",
        "SELECT * FROM tenancy.audited_tables ORDER BY relation::text",
        "SELECT * FROM tenancy.audit_retention ORDER BY keep",
        "SELECT * FROM tenancy.audit_maintenance ORDER BY id",
        "SELECT * FROM tenancy.audit_seals ORDER BY number",
        "SELECT * FROM tenancy.verify_audit()",
        "SELECT ok FROM tenancy.verify_audit((SELECT digest FROM tenancy.audit_seals ORDER BY number DESC LIMIT 1)) WHERE partition = 'tenancy.audit_seals'",
    ];
    let told: Vec<String> = views.iter().flat_map(|view| dba.rows(view)).collect();
    assert!(
        told.iter().any(|line| line.contains("as seal")) && told.iter().any(|line| line.contains("pear")),
        "{told:#?}"
    );
    dba.sees("SELECT * FROM tenancy.verify_audit() WHERE NOT ok", &[]);
    told.join("\n")
}

/// New entries join the old ones, and retention works on months that were sealed before.
fn books_go_on(shop: &Shop, db: &Db) {
    let red = db.enter(&shop.app, &shop.red);
    red.run("UPDATE shop.orders SET item = 'plum'; UPDATE shop.orders SET item = 'apple'");
    let dba = db.admin();
    dba.sees(
        "SELECT action, new_values ->> 'item' FROM tenancy.row_history('shop.orders', '{\"id\": 1}') ORDER BY id DESC LIMIT 2",
        &["UPDATE|apple", "UPDATE|plum"],
    );
    dba.sees("SELECT count(*) - count(DISTINCT id) FROM tenancy.audit_log", &["0"]);
    dba.run("SELECT tenancy.set_audit_retention('40 days', 'red')");
    dba.run("CALL tenancy.maintain_audit()");
    dba.run("CALL tenancy.seal_audit()");
    dba.sees("SELECT action FROM tenancy.audit_seals ORDER BY number DESC LIMIT 1", &["pruned"]);
    dba.sees("SELECT * FROM tenancy.verify_audit() WHERE NOT ok", &[]);
}

/// The older and the newer server, the extension installed in both.
fn both_ends() -> (Server, Server) {
    let here = Cluster::shared().server().clone();
    let other = if here.major == DEFAULT_MAJOR { NEWEST } else { DEFAULT_MAJOR };
    let there = installed(other);
    if here.major < there.major { (here, there) } else { (there, here) }
}

fn installed(major: u32) -> Server {
    let choice = Choice { pg: Some(major), pg_config: None };
    let server = Server::choose(&choice).unwrap_or_else(|error| panic!("{error:?}"));
    Toolchain::ready_for(&server)
        .and_then(|toolchain| toolchain.install(&server, Profile::Dev))
        .unwrap_or_else(|error| panic!("{error:?}"));
    server
}

/// Stops `old` and brings what it has into a new cluster on `to`.
fn upgraded(old: &Cluster, to: &Server) -> Cluster {
    let new = Cluster::launch(to, &[]).unwrap_or_else(|error| panic!("{error:?}"));
    remove_marks(old);
    old.stop(Shutdown::Fast);
    new.stop(Shutdown::Fast);
    if to.major >= 18 && old.major() < 18 {
        // initdb has them on since 18, and pg_upgrade wants both ends alike.
        let mut checksums = old.server().program("pg_checksums").expect("pg_checksums");
        process::output(checksums.arg("--enable").arg("--pgdata").arg(old.data()))
            .unwrap_or_else(|error| panic!("{error:?}"));
    }
    let mut pg_upgrade = to.program("pg_upgrade").expect("pg_upgrade");
    pg_upgrade
        .arg("--old-bindir")
        .arg(&old.server().bindir)
        .arg("--new-bindir")
        .arg(&to.bindir)
        .arg("--old-datadir")
        .arg(old.data())
        .arg("--new-datadir")
        .arg(new.data())
        .arg("--socketdir")
        .arg(new.sockets())
        .args(["--username", "postgres"])
        // It writes a script for the removal of the old cluster into its working folder.
        .current_dir(new.sockets());
    process::output(&mut pg_upgrade).unwrap_or_else(|error| panic!("{error:?}\n{}", complaints(&new.data())));
    new.restart(Shutdown::Fast);
    new
}

/// Debian's 15.20 leaves a private option `pg_attver` on every column, which a pg_dump of the same age leaves out but an
/// older 18's does not know, so that it could upgrade no table whatsoever.
fn remove_marks(cluster: &Cluster) {
    let databases = "SELECT datname FROM pg_database WHERE datallowconn";
    for database in cluster.superuser().rows(databases) {
        let session = Session::open(cluster.config("postgres", &database));
        session.unwrap_or_else(|error| panic!("{error}")).run(
            "UPDATE pg_attribute SET attoptions = NULL WHERE array_length(attoptions, 1) = 1 AND attoptions[1] LIKE 'pg\\_attver=%'",
        );
    }
}

/// What the programs that pg_upgrade runs wrote of errors; it only says where.
fn complaints(data: &Path) -> String {
    let (mut found, mut folders) = (String::new(), vec![data.join("pg_upgrade_output.d")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let log = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            if let Some(at) = lines.iter().position(|line| line.contains("rror:")) {
                found.push_str(&format!("{}:\n{}\n", path.display(), lines[at..].join("\n")));
            }
        }
    }
    found
}

fn plain(cluster: &Cluster) -> Session {
    Session::open(cluster.config("postgres", PLAIN)).unwrap_or_else(|error| panic!("{error}"))
}

fn fresh(cluster: &Cluster) -> Session {
    let db: Db = cluster.bare_db();
    db.admin().run("CREATE EXTENSION pg_tenancy");
    db.admin()
}
