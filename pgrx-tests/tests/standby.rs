//! On a hot standby tenants read their own rows, and what the primary decides about a tenant counts there too; so it does
//! where the registry arrives by logical replication.

use std::time::Duration;

use pg_tenancy_tests::{Cluster, Db, Role, Tenant, process};

/// A primary with a protected table `orders` and a row each of two tenants, and its standby.
struct Pair {
    primary: Cluster,
    standby: Cluster,
    db: Db,
    app: Role,
    red: Tenant,
    blue: Tenant,
}

impl Pair {
    fn new(settings: &[(&str, &str)]) -> Self {
        let primary = Cluster::start(settings);
        let db = primary.db();
        let (app, red, blue) = (db.application("app"), db.tenant("red"), db.tenant("blue"));
        db.admin().run(
            "CREATE TABLE orders (tenant_id uuid NOT NULL, item text NOT NULL); SELECT tenancy.protect_table('orders')",
        );
        db.admin().run(&format!("GRANT SELECT, INSERT ON orders TO {app}"));
        for tenant in [&red, &blue] {
            db.enter(&app, tenant).run(&format!("INSERT INTO orders (item) VALUES ('{}')", tenant.code));
        }
        let standby = primary.standby();
        standby.catch_up_with(&primary);
        Self { primary, standby, db, app, red, blue }
    }

    /// The database on the standby.
    fn image(&self) -> Db {
        self.db.on(&self.standby)
    }

    /// Runs it on the primary as superuser and waits until the standby has it.
    #[track_caller]
    fn decide(&self, sql: &str) {
        self.db.admin().run(sql);
        self.standby.catch_up_with(&self.primary);
    }
}

#[test]
fn a_standby_is_isolated_as_its_primary_is() {
    let pair = Pair::new(&[]);
    let image = pair.image();
    for tenant in [&pair.red, &pair.blue] {
        let client = image.enter(&pair.app, tenant);
        client.sees("SELECT item FROM orders", &[&tenant.code]);
        client.sees("SELECT tenancy.current_tenant_code()", &[&tenant.code]);
        client.refused("25006", "INSERT INTO orders (item) VALUES ('written')");
        client.session().refused("55000", "SELECT item FROM orders");
    }
    let session = image.login(&pair.app);
    session.run("BEGIN; SELECT tenancy.set_tenant('red')");
    session.refused("42501", "SET LOCAL app.current_tenant_id = 'blue'");
    session.run("ROLLBACK");
    session.refused("42704", "SELECT tenancy.set_tenant('nobody')");
}

#[test]
fn all_that_only_reads_works_on_a_standby() {
    let pair = Pair::new(&[]);
    let client = pair.image().enter(&pair.app, &pair.red);
    client.transaction(|session| {
        session.sees("SELECT tenancy.has_tenant(), tenancy.is_admin()", &["t|f"]);
        session.sees("SELECT tenant_code, is_bound, problem FROM tenancy.verify_context()", &["red|t|NULL"]);
        session.run("SELECT tenancy.assert_tenant('red')");
        session.sees("SELECT code FROM tenancy.tenants", &["red"]);
        session.run("SELECT tenancy.clear_tenant()");
    });
    let admin = pair.image().admin();
    admin.sees("SELECT relation, is_enforced FROM tenancy.protected_tables", &["orders|t"]);
    admin.sees("SELECT tenancy.find_tenant('blue') IS NOT NULL", &["t"]);
    admin.run("SELECT * FROM tenancy.plan_protection('orders')");
    admin.run("BEGIN; SELECT tenancy.switch_tenant('red'); SELECT tenancy.switch_tenant('blue'); COMMIT");
    // Whether tenants are apart is asked there, too: of catalog, roles and rows.
    pair.decide("ALTER TABLE orders NO FORCE ROW LEVEL SECURITY");
    let dba = pair.image().admin();
    dba.sees(
        "SELECT object FROM tenancy.check_integrity(deep => true) WHERE check_id = 'row_security_not_forced'",
        &["public.orders"],
    );
    dba.sees("SELECT tenancy.integrity_report('data') -> 'coverage' -> 'rows_read'", &["2"]);
    dba.refused("23514", "SELECT tenancy.assert_integrity()");
    dba.run("SELECT tenancy.health(), tenancy.diagnose('red')");
}

/// A call of each function and procedure, once with NULL for each argument and once with something.
const CALLS: &str = r"
    SELECT format('%s %I.%I(%s)', CASE p.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, n.nspname, p.proname,
                  (SELECT string_agg(CASE WHEN given.is_null THEN 'NULL::' || a.type
                                          ELSE quote_literal(CASE WHEN a.type = 'boolean' THEN 'true'
                                                   WHEN a.type = 'regclass' THEN 'orders'
                                                   WHEN a.type = 'regrole' THEN 'pg_monitor'
                                                   WHEN a.name ~ 'schema' THEN 'public'
                                                   WHEN a.name ~ 'confirm|tenant' THEN 'red'
                                                   WHEN a.type = 'interval' THEN '1 day'
                                                   WHEN a.type IN ('json', 'jsonb') OR a.type ~ '\[\]' THEN '{}'
                                                   WHEN a.type ~ '^timestamp|^date' THEN '2026-01-01'
                                                   WHEN a.type = 'uuid' THEN '00000000-0000-4000-8000-000000000000'
                                                   WHEN a.type IN ('text', 'name') THEN 'item' ELSE '1' END) || '::' || a.type END,
                                     ', ' ORDER BY u.at)
                     FROM unnest(p.proargtypes::oid[], p.proargnames) WITH ORDINALITY AS u(oid, name, at)
                    CROSS JOIN LATERAL (SELECT format_type(u.oid, NULL) AS type, u.name) AS a
                    WHERE u.oid IS NOT NULL))
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     CROSS JOIN (VALUES (true), (false)) AS given(is_null)
     WHERE n.nspname = 'tenancy' AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype)
     ORDER BY 1";

#[test]
fn nothing_fails_on_a_standby_with_an_internal_error() {
    let pair = Pair::new(&[]);
    pair.decide(
        "SELECT tenancy.enable_stamps('orders');
         CREATE TABLE parts (id int PRIMARY KEY, tenant_id uuid, code text);
         CREATE TABLE kept (id int PRIMARY KEY, tenant_id uuid);
         SELECT tenancy.protect_table('kept'), tenancy.enable_soft_delete('kept');
         INSERT INTO kept (id, tenant_id, deleted_at) SELECT 1, id, now() FROM tenancy.tenants WHERE code = 'red'",
    );
    let dba = pair.image().admin();
    for call in [
        "SELECT tenancy.exempt_role('pg_monitor', 'x')",
        "SELECT tenancy.restore_row('kept', '{\"id\": 1}')",
        "SELECT tenancy.unprotect_schema('public')",
        "SELECT tenancy.protect_schema('public')",
        "SELECT tenancy.disable_stamps('orders')",
        "SELECT tenancy.create_tenant('green')",
        "SELECT tenancy.suspend_tenant('red')",
        "SELECT tenancy.protect_table('parts')",
        "SELECT tenancy.unprotect_table('orders')",
        "SELECT tenancy.audit_table('orders')",
    ] {
        dba.refused("25006", call);
    }
    let calls = dba.rows(CALLS);
    assert!(calls.len() > 150, "{calls:?}");
    let mut wrong = Vec::new();
    for call in &calls {
        if let Err(error) = dba.try_run(call)
            && error.code().is_none_or(|code| code.code().starts_with("XX"))
        {
            wrong.push(format!("{call}: {error:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_read_only_transaction_reads_what_it_may_and_writes_nothing() {
    let pair = Pair::new(&[]);
    let dba = pair.db.admin();
    dba.run("SET default_transaction_read_only = on");
    dba.run("SELECT * FROM tenancy.plan_protection('orders'); SELECT * FROM tenancy.check_integrity()");
    for call in ["SELECT tenancy.unprotect_table('orders')", "SELECT tenancy.exempt_role('pg_monitor', 'x')"] {
        dba.refused("25006", call);
        dba.sees("SELECT pg_current_xact_id_if_assigned() IS NULL", &["t"]);
    }
}

#[test]
fn reading_assigns_no_transaction_id() {
    let pair = Pair::new(&[]);
    let client = pair.db.enter(&pair.app, &pair.red);
    client.transaction(|session| {
        session.run(
            "SELECT item FROM orders; SELECT * FROM tenancy.verify_context(); SELECT tenancy.assert_tenant('red')",
        );
        session.run("SELECT tenancy.has_tenant(), tenancy.current_tenant_id(), tenancy.current_tenant_number()");
        session.sees("SELECT pg_current_xact_id_if_assigned() IS NULL", &["t"]);
        session.run("INSERT INTO orders (item) VALUES ('red')");
        session.sees("SELECT pg_current_xact_id_if_assigned() IS NULL", &["f"]);
    });
}

#[test]
fn tokens_and_bindings_count_on_a_standby_as_the_primary_has_them() {
    let pair = Pair::new(&[]);
    pair.decide(&format!(
        "ALTER ROLE {} SET tenancy.context_mode = 'signed'; SELECT tenancy.add_signing_key('k1', 'HS256', repeat('x', 32))",
        pair.app
    ));
    let session = pair.image().login(&pair.app);
    session.refused("42501", "BEGIN; SELECT tenancy.set_tenant('red')");
    session.run("ROLLBACK");
    let token = pair.image().admin().value("SELECT tenancy.sign_tenant_token('red')");
    let take = format!("SELECT tenancy.set_tenant_signed('{token}')");
    session.run(&format!("BEGIN; {take}"));
    session.sees("SELECT item FROM orders", &["red"]);
    session.run("COMMIT");
    pair.decide("SELECT tenancy.retire_signing_key('k1')");
    session.refused("42501", &take);
    pair.decide(&format!("SELECT tenancy.bind_role('{}', 'blue')", pair.app));
    session.sees("SELECT item FROM orders", &["blue"]);
    pair.decide(&format!("SELECT tenancy.unbind_role('{}')", pair.app));
    session.refused("55000", "SELECT item FROM orders");
}

#[test]
fn a_suspension_on_the_primary_reaches_open_sessions_of_the_standby() {
    let pair = Pair::new(&[]);
    let (red, blue) = (pair.image().enter(&pair.app, &pair.red), pair.image().enter(&pair.app, &pair.blue));
    red.sees("SELECT item FROM orders", &["red"]);
    pair.decide("SELECT tenancy.suspend_tenant('red', 'unpaid')");
    red.refused_entry("55000");
    blue.sees("SELECT item FROM orders", &["blue"]);
    pair.decide("SELECT tenancy.resume_tenant('red')");
    red.sees("SELECT item FROM orders", &["red"]);
}

#[test]
fn a_transaction_under_way_on_the_standby_meets_the_suspension_too() {
    let pair = Pair::new(&[]);
    let session = pair.image().login(&pair.app);
    session.run("BEGIN; SELECT tenancy.set_tenant('red')");
    session.sees("SELECT item FROM orders", &["red"]);
    pair.decide("SELECT tenancy.suspend_tenant('red')");
    session.refused("55000", "SELECT item FROM orders");
}

#[test]
fn a_new_tenant_is_known_to_sessions_that_were_told_there_is_none() {
    let pair = Pair::new(&[]);
    let session = pair.image().login(&pair.app);
    session.refused("42704", "SELECT tenancy.set_tenant('green')");
    pair.decide("SELECT tenancy.create_tenant('green')");
    session.run("BEGIN; SELECT tenancy.set_tenant('green')");
    session.sees("SELECT item FROM orders", &[]);
    session.run("COMMIT");
}

#[test]
fn a_promoted_standby_goes_on_with_the_same_isolation() {
    let pair = Pair::new(&[("shared_preload_libraries", "pg_tenancy")]);
    let image = pair.image();
    image.admin().sees("SELECT loaded_by FROM tenancy.verify_context()", &["shared_preload_libraries"]);
    let (red, blue) = (image.enter(&pair.app, &pair.red), image.enter(&pair.app, &pair.blue));
    red.sees("SELECT item FROM orders", &["red"]);
    pair.standby.superuser().sees("SELECT pg_promote(true, 60)", &["t"]);
    red.run("INSERT INTO orders (item) VALUES ('after')");
    red.sees("SELECT item FROM orders ORDER BY 1", &["after", "red"]);
    blue.sees("SELECT item FROM orders", &["blue"]);
    image.admin().run("SELECT tenancy.suspend_tenant('red')");
    red.refused_entry("55000");
}

#[test]
fn a_registry_that_is_replicated_row_by_row_reaches_open_sessions() {
    let publisher = Cluster::start(&[("wal_level", "logical")]);
    let subscriber = Cluster::start(&[]);
    let (source, copy) = (publisher.db(), subscriber.db());
    let (red, app) = (source.tenant("red"), copy.application("app"));
    source.admin().run("CREATE PUBLICATION registry FOR TABLE tenancy.tenants");
    copy.admin().run(&format!(
        "CREATE SUBSCRIPTION registry CONNECTION 'host={} port={} user=postgres dbname={}' PUBLICATION registry",
        publisher.sockets().display(),
        publisher.port(),
        source.name()
    ));
    let observer = copy.admin();
    let arrives = |status: &str| {
        let found = format!("SELECT count(*) FROM tenancy.tenants WHERE status = '{status}'");
        let wait = || Ok((observer.value(&found) == "1").then_some(()));
        process::wait_for("the registry to arrive", Duration::from_secs(60), wait)
            .unwrap_or_else(|error| panic!("{error:?}"));
    };
    arrives("active");
    let client = copy.enter(&app, &red);
    client.sees("SELECT tenancy.current_tenant_id()", &[&red.id.to_string()]);
    source.admin().run("SELECT tenancy.suspend_tenant('red')");
    arrives("suspended");
    client.refused_entry("55000");
    // Its slot keeps the publisher's database from being dropped.
    observer.run("DROP SUBSCRIPTION registry");
}
