//! A policy must not cost a plan: queries under it stay parallel and use the indexes a hand-written WHERE would use.

use pg_tenancy_tests::{Db, Role, Session, Tenant, TenantSession};

const ROWS: u32 = 20_000;

/// A table per kind of key, each with `ROWS` rows for red and as many for blue, and a child table.
struct Store {
    db: Db,
    app: Role,
    red: Tenant,
    blue: Tenant,
}

/// Every table, with the function that gives its key.
const TABLES: [(&str, &str); 3] = [
    ("by_id", "tenancy.current_tenant_id()"),
    ("by_number", "tenancy.current_tenant_number()"),
    ("by_code", "tenancy.current_tenant_code()"),
];

/// Makes the planner take workers for small tables, too.
const EAGER: &str = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
                     SET min_parallel_index_scan_size = 0; SET max_parallel_workers_per_gather = 2";

impl Store {
    fn new() -> Self {
        let db = Db::new();
        let (app, red, blue) = (db.application("app"), db.tenant("red"), db.tenant("blue"));
        let admin = db.admin();
        for (table, key, tenants) in [
            ("by_id", "uuid", [red.id.to_string(), blue.id.to_string()]),
            ("by_number", "bigint", [red.number.to_string(), blue.number.to_string()]),
            ("by_code", "text", [red.code.clone(), blue.code.clone()]),
        ] {
            let [red, blue] = tenants;
            admin.run(&format!(
                "CREATE TABLE {table} (id bigint PRIMARY KEY, tenant {key} NOT NULL, at date NOT NULL, amount int NOT NULL);
                 INSERT INTO {table} SELECT n, (ARRAY['{red}', '{blue}'])[1 + n % 2]::{key}, date '2020-01-01' + (n / 40)::int, n % 100
                   FROM generate_series(1, 2 * {ROWS}) n;
                 SELECT tenancy.protect_table('{table}', tenant_column => 'tenant');
                 CREATE INDEX ON {table} (tenant, at);
                 GRANT SELECT, UPDATE, DELETE ON {table} TO {app}"
            ));
        }
        admin.run(&format!(
            "CREATE TABLE lines (line bigint PRIMARY KEY, tenant uuid NOT NULL, id bigint NOT NULL REFERENCES by_id);
             INSERT INTO lines SELECT n, o.tenant, o.id FROM generate_series(1, 2 * {ROWS}) n JOIN by_id o ON o.id = n;
             SELECT tenancy.protect_table('lines', tenant_column => 'tenant');
             CREATE INDEX ON lines (tenant, id);
             GRANT SELECT ON lines TO {app}"
        ));
        admin.run("VACUUM ANALYZE");
        Self { db, app, red, blue }
    }

    fn enter(&self, tenant: &Tenant) -> TenantSession {
        let client = self.db.enter(&self.app, tenant);
        client.session().run(EAGER);
        client
    }
}

#[test]
fn plans_under_the_policy_are_parallel() {
    let store = Store::new();
    let red = store.enter(&store.red);
    for (table, _) in TABLES {
        let query = format!("SELECT count(*), sum(amount) FROM {table} WHERE amount < 90");
        let plan = red.rows(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {query}")).join("\n");
        assert!(plan.contains("Gather") && plan.contains("Workers Launched: 2"), "{plan}");
        assert!(plan.contains("tenant = tenancy.current_tenant"), "{plan}");
        let expected = |remainder: u32| {
            let of_tenant = (1..=2 * ROWS).filter(|n| n % 2 == remainder);
            let amounts: Vec<u32> = of_tenant.map(|n| n % 100).filter(|amount| *amount < 90).collect();
            format!("{}|{}", amounts.len(), amounts.iter().sum::<u32>())
        };
        red.sees(&query, &[&expected(0)]);
        store.enter(&store.blue).sees(&query, &[&expected(1)]);
    }
}

#[test]
fn every_worker_knows_the_tenant() {
    let store = Store::new();
    for tenant in [&store.red, &store.blue] {
        let client = store.enter(tenant);
        client.session().run("SET parallel_leader_participation = off");
        for (table, current) in TABLES {
            client.sees(
                &format!("SELECT count(*), count(DISTINCT tenant), bool_and(tenant = {current}) FROM {table}"),
                &[&format!("{ROWS}|1|t")],
            );
        }
    }
}

#[test]
fn a_worker_takes_no_stale_tenant_for_a_live_one() {
    let store = Store::new();
    let session = store.db.login(&store.app);
    session.run(EAGER);
    let force = if store.db.cluster().major() < 16 { "force_parallel_mode" } else { "debug_parallel_query" };
    session.run(&format!("SET {force} = on; SET parallel_leader_participation = off"));
    session.refused("55000", "SELECT count(*) FROM by_id");
    session.run("SET app.current_tenant_id = 'red'");
    session.refused("55000", "SELECT count(*) FROM by_id");
    session.run("BEGIN; SELECT tenancy.set_tenant('red')");
    session.sees("SELECT count(*) FROM by_id", &[&ROWS.to_string()]);
    session.run("COMMIT");
    session.refused("55000", "SELECT count(*) FROM by_id");
    store.db.admin().run("SELECT tenancy.suspend_tenant('red')");
    session.run("BEGIN; SET LOCAL app.current_tenant_id = 'red'");
    session.refused("55000", "SELECT count(*) FROM by_id");
}

#[test]
fn plans_are_those_of_a_hand_written_where() {
    let store = Store::new();
    let red = store.enter(&store.red);
    let superuser = store.db.admin();
    superuser.run(EAGER);
    for (table, current) in TABLES {
        for query in [
            "SELECT * FROM $t WHERE id = 7",
            "SELECT count(*) FROM $t",
            "SELECT * FROM $t WHERE at >= '2021-01-01' ORDER BY at LIMIT 10",
            "SELECT at, sum(amount) FROM $t WHERE at < '2020-03-01' GROUP BY at ORDER BY at",
            "SELECT max(at) FROM $t",
            "SELECT * FROM $t WHERE id = ANY (ARRAY[1, 2, 3])",
            "UPDATE $t SET amount = 1 WHERE id = 7",
        ] {
            let under_policy = query.replace("$t", table);
            let by_hand = with_condition(&under_policy, &format!("tenant = {current}"));
            same_plan(&red, &superuser, &under_policy, &by_hand);
        }
    }
    same_plan(
        &red,
        &superuser,
        "SELECT count(*) FROM by_id o JOIN lines l USING (tenant, id) WHERE o.at < '2020-02-01'",
        "SELECT count(*) FROM by_id o JOIN lines l USING (tenant, id) WHERE o.at < '2020-02-01'
            AND o.tenant = tenancy.current_tenant_id() AND l.tenant = tenancy.current_tenant_id()",
    );
}

#[test]
fn a_point_query_reads_through_an_index() {
    let store = Store::new();
    let red = store.enter(&store.red);
    for (table, _) in TABLES {
        let plan = red.explain(&format!("SELECT * FROM {table} WHERE id = 7"));
        assert!(plan.starts_with(&format!("Index Scan using {table}_pkey")), "{plan}");
        let plan = red.explain(&format!("SELECT at FROM {table} WHERE at = '2020-05-05'"));
        assert!(plan.contains(&format!("{table}_tenant_at_idx")), "{plan}");
        assert!(plan.contains("Index Cond: ((tenant = tenancy.current_tenant"), "{plan}");
    }
}

#[test]
fn partitions_of_other_tenants_are_not_touched() {
    let store = Store::new();
    let (red, blue) = (store.red.number, store.blue.number);
    let admin = store.db.admin();
    admin.run(&format!(
        "CREATE TABLE parts (tenant bigint NOT NULL, item text) PARTITION BY LIST (tenant);
         CREATE TABLE parts_red PARTITION OF parts FOR VALUES IN ({red});
         CREATE TABLE parts_blue PARTITION OF parts FOR VALUES IN ({blue});
         INSERT INTO parts VALUES ({red}, 'red'), ({blue}, 'blue');
         SELECT tenancy.protect_table('parts', tenant_column => 'tenant');
         GRANT SELECT ON parts TO {}",
        store.app
    ));
    let client = store.db.enter(&store.app, &store.red);
    let plan = client.explain("SELECT item FROM parts");
    assert!(plan.contains("parts_red") && !plan.contains("parts_blue"), "{plan}");
    client.sees("SELECT item FROM parts", &["red"]);
}

/// `query` with one more condition on its table.
fn with_condition(query: &str, condition: &str) -> String {
    let tail = [" GROUP BY", " ORDER BY"].iter().filter_map(|word| query.find(word)).min();
    let (head, tail) = query.split_at(tail.unwrap_or(query.len()));
    let joined = if head.contains(" WHERE ") { "AND" } else { "WHERE" };
    format!("{head} {joined} {condition}{tail}")
}

/// The nodes, in order and depth, and what they read; conditions may stand in another order.
#[track_caller]
fn same_plan(bound: &TenantSession, superuser: &Session, under_policy: &str, by_hand: &str) {
    let ours = bound.explain(under_policy);
    superuser.run("BEGIN; SELECT tenancy.set_tenant('red')");
    let theirs = superuser.explain(by_hand);
    superuser.run("COMMIT");
    assert_eq!(shape(&ours), shape(&theirs), "\nunder the policy:\n{ours}\nby hand:\n{theirs}");
}

fn shape(plan: &str) -> Vec<String> {
    plan.lines()
        .map(|line| {
            let (label, condition) = line.split_once(": ").unwrap_or((line, ""));
            let mut parts: Vec<&str> = condition.split(" AND ").map(|part| part.trim_matches(['(', ')'])).collect();
            parts.sort_unstable();
            format!("{label}: {}", parts.join(" AND "))
        })
        .collect()
}
