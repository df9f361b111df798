//! The planner puts the tenant into queries on partitioned tables (`tenancy.fold_tenant`). No row may be shown for it that
//! would not be shown without, and none may be missing: whoever planned for whom, and whenever the tenant changed.

use std::collections::HashMap;

use pg_tenancy_tests::{Db, Role, Session, Tenant};
use postgres::{Statement, types::Type};

#[path = "folding/wire.rs"]
mod wire;
use wire::Wire;

/// Tables of every kind of tenant column, once in each of two schemas; the rows are the same.
struct Shop {
    db: Db,
    app: Role,
    tenants: Vec<Tenant>,
}

const SCHEMAS: [&str; 2] = ["folded", "plain"];

impl Shop {
    fn new() -> Self {
        let db = Db::new();
        let tenants = vec![db.tenant("red"), db.tenant("blue"), db.tenant("green")];
        let app = db.application("app");
        let admin = db.admin();
        admin.run(&format!(
            "CREATE DOMAIN whose AS uuid;
             GRANT EXECUTE ON FUNCTION tenancy.switch_tenant(text) TO {app};
             CREATE TABLE colours (id int, name text); INSERT INTO colours VALUES (0, 'grey'), (1, 'white'), (2, 'black');
             GRANT SELECT ON colours TO {app}; GRANT TEMPORARY ON DATABASE \"{}\" TO {app}",
            db.name()
        ));
        for schema in SCHEMAS {
            admin.run(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public"));
            for (table, column, kind, key) in [
                ("orders", "tenant_id uuid", "HASH (tenant_id)", "id"),
                ("accounts", "tenant_number int", "HASH (tenant_number)", "number"),
                ("notes", "tenant_code varchar(40)", "HASH (tenant_code)", "code"),
                ("files", "tenant_id whose", "HASH (tenant_id)", "id"),
                ("shelf", "tenant_id uuid", "HASH (tenant_id)", "id"),
                ("ledger", "tenant_number bigint", "LIST (tenant_number)", "number"),
                ("events", "tenant_id uuid", "RANGE (n)", "id"),
            ] {
                admin.run(&format!("CREATE TABLE {table} (n int, {column}, amount int) PARTITION BY {kind}"));
                match kind.split_once(' ') {
                    Some(("HASH", _)) => parts(&admin, table),
                    Some(("LIST", _)) => admin.run(&format!(
                        "CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES IN ({}, {});
                         CREATE TABLE {table}_default PARTITION OF {table} DEFAULT",
                        tenants[0].number, tenants[1].number
                    )),
                    _ => {
                        admin.run(&format!(
                            "CREATE TABLE {table}_low PARTITION OF {table} FOR VALUES FROM (0) TO (6) PARTITION BY HASH (tenant_id);
                             CREATE TABLE {table}_high PARTITION OF {table} FOR VALUES FROM (6) TO (100)"
                        ));
                        parts(&admin, &format!("{table}_low"));
                    }
                }
                let key_column = column.split(' ').next().unwrap();
                admin.run(&format!(
                    "INSERT INTO {table} SELECT n, t.{key}, n * 10 + t.number FROM tenancy.tenants t, generate_series(1, 9) n;
                     CREATE INDEX ON {table} ({key_column}, n);
                     SELECT tenancy.protect_table('{table}', '{key_column}', '{}')",
                    if table == "shelf" { "shared" } else { "tenant" }
                ));
            }
            admin.run(&format!(
                "INSERT INTO shelf VALUES (100, NULL, 7);
                 CREATE VIEW seen WITH (security_invoker = true) AS SELECT * FROM orders WHERE amount > 0;
                 CREATE FUNCTION by_sql() RETURNS text STABLE LANGUAGE sql
                     AS 'SELECT string_agg(n || '':'' || amount, '' '' ORDER BY n) FROM {schema}.orders';
                 CREATE FUNCTION by_inlined() RETURNS SETOF int STABLE LANGUAGE sql AS 'SELECT amount FROM {schema}.orders';
                 CREATE FUNCTION by_plpgsql(above int) RETURNS text LANGUAGE plpgsql AS $$
                     DECLARE answer text; one record; BEGIN
                         SELECT string_agg(n || ':' || amount, ' ' ORDER BY n) INTO answer FROM {schema}.orders WHERE n > above;
                         FOR one IN SELECT amount FROM {schema}.ledger ORDER BY n LOOP answer := answer || ',' || one.amount; END LOOP;
                         RETURN answer;
                     END $$;
                 CREATE FUNCTION by_execute(query text) RETURNS text LANGUAGE plpgsql AS $$
                     DECLARE answer text; BEGIN EXECUTE query INTO answer; RETURN answer; END $$;
                 GRANT USAGE ON SCHEMA {schema} TO {app};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {app}"
            ));
        }
        admin.run("ANALYZE");
        Self { db, app, tenants }
    }

    fn login(&self, schema: &str) -> Session {
        let session = self.db.login(&self.app);
        // Loads the library, and folds or does not.
        session.run(&format!(
            "SELECT tenancy.has_tenant(); SET search_path = {schema}, public; SET tenancy.fold_tenant = {}",
            if schema == "folded" { "on" } else { "off" }
        ));
        session
    }
}

fn parts(admin: &Session, table: &str) {
    for part in 0..4 {
        admin.run(&format!(
            "CREATE TABLE {table}_{part} PARTITION OF {table} FOR VALUES WITH (MODULUS 4, REMAINDER {part})"
        ));
    }
}

/// How many partitions of `orders` the transaction has locked: those that its plans had to look at.
const LOOKED_AT: &str = "SELECT count(*)::text FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                          WHERE l.pid = pg_backend_pid() AND c.relkind = 'r' AND c.relname LIKE 'orders\\_%'";
const ORDERS: &str = "SELECT string_agg(n || ':' || amount, ' ' ORDER BY n) AS r FROM orders";

#[test]
fn a_query_sent_as_text_is_planned_for_the_partition_of_its_tenant() {
    let shop = Shop::new();
    let begin = |session: &Session| session.run("ROLLBACK; BEGIN; SELECT tenancy.set_tenant('red')");
    for (schema, looked_at) in [("folded", "1"), ("plain", "4")] {
        let session = shop.login(schema);
        for query in [
            ORDERS.to_owned(),
            "SELECT amount FROM orders WHERE n = 3 FOR UPDATE".to_owned(),
            "UPDATE orders SET amount = 1 WHERE n = 3".to_owned(),
            "DELETE FROM orders WHERE n = 3".to_owned(),
            "SELECT count(*) FROM seen".to_owned(),
            "WITH w AS MATERIALIZED (SELECT * FROM orders) SELECT count(*) FROM w".to_owned(),
            "SELECT c.name, (SELECT max(amount) FROM orders o WHERE o.n = c.id) FROM colours c".to_owned(),
            "SELECT count(*) FROM colours c LEFT JOIN orders o ON o.n = c.id WHERE EXISTS (SELECT FROM orders)"
                .to_owned(),
            format!("EXPLAIN {ORDERS}"),
            format!("CREATE TEMPORARY TABLE t ON COMMIT DROP AS {ORDERS}"),
        ] {
            begin(&session);
            session.run(&query);
            assert_eq!(session.value(LOOKED_AT), looked_at, "{schema}: {query}");
        }
        begin(&session);
        session.client().query_typed("SELECT amount FROM orders WHERE n = $1", &[(&3, Type::INT4)]).unwrap();
        assert_eq!(session.value(LOOKED_AT), looked_at, "{schema}: with a parameter");
        begin(&session);
        session.client().query_typed(ORDERS, &[]).unwrap();
        assert_eq!(session.value(LOOKED_AT), looked_at, "{schema}: by the extended protocol");
    }
}

/// Each of these is planned once for many uses, or read after the tenant may have changed.
#[test]
fn what_is_planned_for_reuse_is_left_as_it_is() {
    let shop = Shop::new();
    let session = shop.login("folded");
    let begin = || session.run("ROLLBACK; BEGIN; SELECT tenancy.set_tenant('red')");
    for query in [
        "SELECT by_sql()".to_owned(),
        "SELECT by_plpgsql(0)".to_owned(),
        format!("SELECT by_execute($${ORDERS}$$)"),
        format!("DECLARE c CURSOR FOR {ORDERS}; FETCH c"),
        format!("PREPARE p AS {ORDERS}; EXECUTE p"),
        format!("DO $$ BEGIN PERFORM ({ORDERS}); END $$"),
    ] {
        begin();
        session.run(&query);
        assert_eq!(session.value(LOOKED_AT), "4", "{query}");
    }
    begin();
    let named = session.client().prepare(ORDERS).unwrap();
    session.client().query(&named, &[]).unwrap();
    assert_eq!(session.value(LOOKED_AT), "4");
}

const SET: &str = "SELECT tenancy.set_tenant($1)::text";
const SWITCH: &str = "SELECT tenancy.switch_tenant($1)::text";

fn wire(shop: &Shop) -> Wire {
    let mut wire = Wire::open(&shop.db, &shop.app);
    for (name, sql) in [
        ("begin", "BEGIN"),
        ("commit", "COMMIT"),
        ("rollback", "ROLLBACK"),
        ("save", "SAVEPOINT s"),
        ("back", "ROLLBACK TO s"),
        ("set", SET),
        ("switch", SWITCH),
        ("discard", "DISCARD PLANS"),
        ("path", "SET search_path = folded, public"),
        ("looked at", LOOKED_AT),
    ] {
        wire.parse(name, sql);
    }
    wire.sync().unwrap();
    wire.run("path", &[]).unwrap();
    wire
}

/// What each tenant must see, as a connection without folding sees it.
fn truth(shop: &Shop, query: &str) -> Vec<String> {
    let session = shop.login("plain");
    shop.tenants
        .iter()
        .map(|tenant| {
            session.run(&format!("BEGIN; SELECT tenancy.set_tenant('{}')", tenant.code));
            let row = session.value(query);
            session.run("COMMIT");
            row
        })
        .collect()
}

/// An unnamed statement lives until the next Parse: its first plan is folded, and may be kept when it has no parameters.
#[test]
fn an_unnamed_statement_follows_the_tenant() {
    let shop = Shop::new();
    let truth = truth(&shop, ORDERS);
    let codes = ["red", "blue", "green"];
    for query in [ORDERS, "SELECT string_agg(n || ':' || amount, ' ' ORDER BY n) AS r FROM orders WHERE n > $1::int"] {
        let parameters: &[&str] = if query.contains('$') { &["0"] } else { &[] };
        let mut wire = wire(&shop);
        wire.run("begin", &[]).unwrap();
        wire.run("set", &["red"]).unwrap();
        wire.parse("", query);
        assert_eq!(wire.run("", parameters).unwrap(), [truth[0].clone()]);
        assert_eq!(wire.run("looked at", &[]).unwrap(), ["1"], "it was folded");
        assert_eq!(wire.run("", parameters).unwrap(), [truth[0].clone()]);
        wire.run("commit", &[]).unwrap();
        assert_eq!(wire.run("", parameters), Err("55000".to_owned()), "without a tenant it is refused");
        for turn in [1, 1, 2, 0, 1, 0, 2, 2] {
            wire.run("begin", &[]).unwrap();
            wire.run("set", &[codes[turn]]).unwrap();
            assert_eq!(wire.run("", parameters).unwrap(), [truth[turn].clone()], "{query} as {}", codes[turn]);
            wire.run("commit", &[]).unwrap();
        }
        // Several tenants in one transaction, and back.
        for plans in ["looked at", "discard"] {
            wire.parse("", query);
            wire.run("begin", &[]).unwrap();
            wire.run("set", &["red"]).unwrap();
            assert_eq!(wire.run("", parameters).unwrap(), [truth[0].clone()]);
            wire.run("save", &[]).unwrap();
            wire.run("switch", &["blue"]).unwrap();
            wire.run(plans, &[]).unwrap();
            assert_eq!(wire.run("", parameters).unwrap(), [truth[1].clone()]);
            wire.run("switch", &["green"]).unwrap();
            assert_eq!(wire.run("", parameters).unwrap(), [truth[2].clone()]);
            wire.run("back", &[]).unwrap();
            assert_eq!(wire.run("", parameters), Err("42501".to_owned()), "a rollback changed the tenant");
            wire.run("rollback", &[]).unwrap();
        }
    }
}

#[test]
fn a_portal_that_was_bound_before_the_tenant_was_switched_shows_nothing_of_either() {
    let shop = Shop::new();
    let truth = truth(&shop, ORDERS);
    let mut wire = wire(&shop);
    wire.run("begin", &[]).unwrap();
    wire.run("set", &["red"]).unwrap();
    wire.parse("", "SELECT n || ':' || amount FROM orders ORDER BY n");
    wire.bind("early", "", &[]);
    wire.bind("begun", "", &[]);
    wire.execute("begun", 2);
    assert_eq!(wire.sync().unwrap().join(" "), truth[0].split(' ').take(2).collect::<Vec<_>>().join(" "));
    wire.run("switch", &["blue"]).unwrap();
    wire.execute("early", 0);
    assert_eq!(wire.sync().unwrap(), [""; 0]);
    // A statement parsed now is blue's.
    assert_eq!(wire.run("", &[]).unwrap().join(" "), truth[1]);
}

#[test]
fn a_suspended_tenant_gets_no_row_from_a_plan_made_before() {
    let shop = Shop::new();
    let mut wire = wire(&shop);
    wire.parse("elsewhere", "SELECT count(*)::text FROM accounts");
    wire.run("begin", &[]).unwrap();
    wire.run("set", &["red"]).unwrap();
    wire.parse("", ORDERS);
    assert!(wire.run("", &[]).is_ok());
    wire.run("save", &[]).unwrap();
    shop.db.admin().run("SELECT tenancy.suspend_tenant('red', 'unpaid')");
    // A backend hears of it when it takes a lock that it does not have.
    assert_eq!(wire.run("elsewhere", &[]), Err("55000".to_owned()));
    wire.run("back", &[]).unwrap();
    assert_eq!(wire.run("", &[]), Err("55000".to_owned()));
}

/// No setting is assigned here: the role's binding says who it is.
#[test]
fn a_role_that_is_bound_to_another_tenant_sees_that_tenants_rows() {
    let shop = Shop::new();
    let truth = truth(&shop, ORDERS);
    let admin = shop.db.admin();
    let bind = |tenant: &str| admin.run(&format!("SELECT tenancy.bind_role('{}', '{tenant}')", shop.app));
    bind("red");
    let mut wire = wire(&shop);
    wire.parse("", ORDERS);
    for turn in [(0, "red"), (0, "red"), (1, "blue"), (2, "green"), (1, "blue")] {
        admin.run(&format!("SELECT tenancy.unbind_role('{}')", shop.app));
        bind(turn.1);
        assert_eq!(wire.run("", &[]).unwrap(), [truth[turn.0].clone()]);
    }
}

#[test]
fn a_stable_function_that_moves_the_tenant_while_a_query_is_planned_is_refused() {
    let shop = Shop::new();
    let session = shop.login("folded");
    shop.db.admin().run(&format!(
        "CREATE FUNCTION sly() RETURNS int STABLE LANGUAGE plpgsql
             AS $$ BEGIN PERFORM tenancy.switch_tenant('blue'); RETURN 5; END $$;
         GRANT EXECUTE ON FUNCTION sly() TO {}",
        shop.app
    ));
    session.run("BEGIN; SELECT tenancy.set_tenant('red')");
    session.refused("55000", "SELECT amount FROM orders WHERE n < sly()");
}

/// The same story told to two connections, one of which folds: each answer must be the same.
struct Twins<'a> {
    shop: &'a Shop,
    sides: Vec<Side>,
    random: u64,
    told: Vec<String>,
    answers: usize,
    rows: usize,
}

struct Side {
    session: Session,
    prepared: HashMap<&'static str, Statement>,
}

type Outcome = Result<Vec<String>, String>;

/// Queries of one text column; `?` is a number from 0 to 9, or a parameter.
const QUERIES: &[&str] = &[
    "SELECT string_agg(n || ':' || amount, ' ' ORDER BY n) AS r FROM orders WHERE n > ?",
    "SELECT n || ':' || amount AS r FROM orders WHERE n > ? ORDER BY n",
    "SELECT count(*)::text || sum(amount) AS r FROM accounts WHERE n <> ?",
    "SELECT string_agg(amount::text, ' ' ORDER BY n) AS r FROM notes WHERE n >= ?",
    "SELECT amount::text AS r FROM files WHERE n = ?",
    "SELECT string_agg(amount::text, ' ' ORDER BY n) AS r FROM shelf WHERE n > ?",
    "SELECT string_agg(amount::text, ' ' ORDER BY n) AS r FROM ledger WHERE n < ?",
    "SELECT string_agg(amount::text, ' ' ORDER BY n) AS r FROM events WHERE n BETWEEN 2 AND ?",
    "SELECT amount::text AS r FROM seen WHERE n = ?",
    "SELECT string_agg(o.amount || '/' || a.amount, ' ' ORDER BY o.n) AS r FROM orders o JOIN accounts a USING (n) WHERE n > ?",
    "SELECT string_agg(o.amount || '/' || f.amount, ' ' ORDER BY o.n) AS r FROM orders o JOIN files f USING (tenant_id, n) WHERE n > ?",
    "SELECT c.name || coalesce(o.amount::text, '-') AS r FROM colours c LEFT JOIN orders o ON o.n = c.id AND c.id > ? ORDER BY 1",
    "SELECT c.name || coalesce(o.amount::text, '-') AS r FROM orders o FULL JOIN colours c ON o.n = c.id WHERE coalesce(o.n, 0) <> ? ORDER BY 1",
    "WITH w AS MATERIALIZED (SELECT * FROM orders) SELECT sum(amount)::text AS r FROM w WHERE n > ?",
    "WITH RECURSIVE w AS (SELECT n, amount FROM orders WHERE n = 1 UNION ALL SELECT o.n, o.amount FROM orders o JOIN w ON o.n = w.n + 1)
         SELECT string_agg(amount::text, ' ' ORDER BY n) AS r FROM w WHERE n > ?",
    "SELECT (SELECT max(amount) FROM orders o WHERE o.n <= c.id + ?)::text AS r FROM colours c ORDER BY c.id",
    "SELECT name AS r FROM colours c WHERE EXISTS (SELECT FROM notes WHERE n = c.id + ?) ORDER BY 1",
    "SELECT name AS r FROM colours c WHERE c.id NOT IN (SELECT n FROM ledger WHERE n > ?) ORDER BY 1",
    "SELECT amount::text AS r FROM orders WHERE n > ? UNION ALL SELECT amount::text FROM events ORDER BY 1",
    "SELECT l.amount::text AS r FROM colours c, LATERAL (SELECT amount FROM orders o WHERE o.n > c.id + ? ORDER BY n LIMIT 1) l ORDER BY 1",
    "SELECT string_agg(x::text, ' ' ORDER BY x) AS r FROM by_inlined() x WHERE x > ?",
    "SELECT by_sql() AS r FROM colours WHERE id < ?",
    "SELECT by_plpgsql(?) AS r",
    "SELECT by_execute('SELECT sum(amount)::text FROM orders WHERE n > 3') AS r FROM colours WHERE id < ?",
    "SELECT amount::text AS r FROM orders WHERE n > ? ORDER BY n FOR UPDATE",
    "UPDATE orders SET amount = amount + 1 WHERE n = ? RETURNING n || ':' || amount AS r",
    "UPDATE ledger SET amount = amount + 1 FROM orders o WHERE o.n = ledger.n AND o.n > ? RETURNING ledger.n::text AS r",
    "DELETE FROM notes WHERE n = ? RETURNING n::text AS r",
    "WITH d AS (DELETE FROM accounts WHERE n = ? RETURNING n) SELECT count(*)::text AS r FROM d",
    "INSERT INTO files (n, amount) SELECT n + 10, amount FROM orders WHERE n = ? RETURNING n::text AS r",
];
/// Without parameters; MERGE returns no rows before 17.
const MERGE: &str = "MERGE INTO events e USING (SELECT n, amount FROM orders) o ON o.n = e.n
                     WHEN MATCHED THEN UPDATE SET amount = o.amount";

const STORIES: u64 = 24;
const STEPS: usize = 70;
/// Over all stories; far fewer than usual means that they hardly test anything.
const FEWEST_ROWS: usize = 1_000;

#[test]
fn folding_changes_no_answer() {
    let shop = Shop::new();
    let mut rows = 0;
    for seed in 0..STORIES {
        let mut twins = Twins::new(&shop, seed);
        for _ in 0..STEPS {
            twins.step();
        }
        twins.tell("ROLLBACK", |side| side.simple("ROLLBACK"));
        rows += twins.rows;
        assert!(twins.answers > STEPS / 4, "story {seed} tells nothing: {:#?}", twins.told);
    }
    assert!(rows > FEWEST_ROWS, "only {rows} rows were compared");
}

impl<'a> Twins<'a> {
    fn new(shop: &'a Shop, seed: u64) -> Self {
        let sides = SCHEMAS.map(|schema| Side { session: shop.login(schema), prepared: HashMap::new() });
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Self { shop, sides: sides.into(), random, told: vec![format!("story {seed}")], answers: 0, rows: 0 }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % limit
    }

    /// Both must answer alike. An error ends the transaction.
    fn tell(&mut self, what: &str, act: impl Fn(&mut Side) -> Outcome) {
        self.told.push(what.to_owned());
        let [folded, plain] = &mut self.sides[..] else { unreachable!("two sides") };
        let (one, other) = (act(folded), act(plain));
        assert_eq!(one, other, "left: folded, right: plain\n{}", self.told.join("\n"));
        match one {
            Ok(rows) => {
                self.answers += 1;
                self.rows += rows.len();
            }
            Err(_) => self.sides.iter().for_each(|side| side.session.run("ROLLBACK")),
        }
    }

    fn simple(&mut self, sql: &str) {
        self.tell(sql, |side| side.simple(sql));
    }

    fn step(&mut self) {
        match self.below(20) {
            0..=3 => self.enter(),
            4 => self.simple("SAVEPOINT s"),
            5 => self.simple("ROLLBACK TO s"),
            6 => {
                let tenant = self.key();
                self.simple(&format!("SELECT tenancy.switch_tenant('{tenant}')::text"));
            }
            7 => self.aside(),
            8 => self.cursor(),
            _ => self.ask(),
        }
    }

    /// A tenant by one of its keys.
    fn key(&mut self) -> String {
        let (tenant, key) = (self.below(3), self.below(3));
        let tenant = &self.shop.tenants[tenant];
        [tenant.id.to_string(), tenant.number.to_string(), tenant.code.clone()][key].clone()
    }

    fn enter(&mut self) {
        let tenant = self.key();
        let end = ["ROLLBACK", "COMMIT"][self.below(2)];
        self.simple(end);
        self.simple("BEGIN");
        match self.below(4) {
            0 => self.simple(&format!("SET LOCAL app.current_tenant_id = '{tenant}'")),
            1 => {} // no tenant
            _ => self.simple(&format!("SELECT tenancy.set_tenant('{tenant}')::text")),
        }
    }

    /// What makes plans old, or changes how they are made.
    fn aside(&mut self) {
        let mode = ["auto", "force_generic_plan", "force_custom_plan"][self.below(3)];
        match self.below(4) {
            0 => self.simple("DISCARD PLANS"),
            1 => self.simple(&format!("SET plan_cache_mode = {mode}")),
            2 => {
                self.told.push("ANALYZE".to_owned());
                self.shop.db.admin().run("ANALYZE folded.orders; ANALYZE plain.orders");
            }
            _ => {
                // Suspended while both try, then in service again.
                let admin = self.shop.db.admin();
                admin.run("SELECT tenancy.suspend_tenant('red', 'test')");
                self.ask();
                admin.run("SELECT tenancy.resume_tenant('red')");
            }
        }
    }

    fn cursor(&mut self) {
        let query = QUERIES[self.below(12)].replace('?', "1");
        let hold = ["", "WITH HOLD "][self.below(2)];
        self.simple(&format!("DECLARE c CURSOR {hold}FOR {query}"));
        self.simple("FETCH 2 FROM c");
        match self.below(3) {
            0 => self.simple("COMMIT"),
            1 => {
                let tenant = self.key();
                self.simple(&format!("SELECT tenancy.switch_tenant('{tenant}')::text"));
            }
            _ => {}
        }
        self.simple("FETCH ALL FROM c");
        self.simple("CLOSE c");
    }

    /// One of the queries, in one of the ways that there are to send it.
    fn ask(&mut self) {
        let (query, number, way) = (self.below(QUERIES.len() + 1), self.below(10) as i32, self.below(8));
        let Some(query) = QUERIES.get(query).copied() else { return self.simple(MERGE) };
        let literal = query.replace('?', &number.to_string());
        let what = format!("way {way}: {literal}");
        match way {
            0..=2 => self.simple(&literal),
            3 => self.tell(&what, |side| side.executed(query, number)),
            4 => self.tell(&what, |side| side.prepared(query, number)),
            5 => self.tell(&what, |side| side.unnamed(&query.replace('?', "$1"), Some(number))),
            6 => self.tell(&what, |side| side.unnamed(&literal, None)),
            _ if query.starts_with("SELECT") && !query.contains("UPDATE") => {
                self.simple(&format!("CREATE TEMPORARY TABLE kept ON COMMIT DROP AS {literal}"));
                self.simple("SELECT r FROM kept ORDER BY 1");
                self.simple("DROP TABLE kept");
            }
            _ => self.tell(&what, |side| side.prepared(query, number)),
        }
    }
}

impl Side {
    fn simple(&mut self, sql: &str) -> Outcome {
        self.session.try_rows(sql).map_err(|error| state(&error))
    }

    /// By PREPARE and EXECUTE; what is prepared stays so.
    fn executed(&mut self, query: &'static str, number: i32) -> Outcome {
        let name = format!("q{}", QUERIES.iter().position(|one| *one == query).unwrap());
        let known = self.simple(&format!("SELECT 1 FROM pg_prepared_statements WHERE name = '{name}'"))?;
        if known.is_empty() {
            self.simple(&format!("PREPARE {name}(int) AS {}", query.replace('?', "$1")))?;
        }
        self.simple(&format!("EXECUTE {name}({number})"))
    }

    /// By a named statement of the protocol.
    fn prepared(&mut self, query: &'static str, number: i32) -> Outcome {
        let mut client = self.session.client();
        let statement = match self.prepared.get(query) {
            Some(statement) => statement.clone(),
            None => {
                let text = query.replace('?', "$1::int");
                let statement = client.prepare(&text).map_err(|error| state(&error))?;
                self.prepared.insert(query, statement.clone());
                statement
            }
        };
        rows(client.query(&statement, &[&number]))
    }

    /// By an unnamed one.
    fn unnamed(&mut self, query: &str, number: Option<i32>) -> Outcome {
        let mut client = self.session.client();
        match number {
            Some(number) => rows(client.query_typed(query, &[(&number, Type::INT4)])),
            None => rows(client.query_typed(query, &[])),
        }
    }
}

fn rows(answer: Result<Vec<postgres::Row>, postgres::Error>) -> Outcome {
    let text = |row: &postgres::Row| row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".to_owned());
    answer.map(|rows| rows.iter().map(text).collect()).map_err(|error| state(&error))
}

fn state(error: &postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}
