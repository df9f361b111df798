//! What is compared: statements on every side, and what it takes to set a tenant.

use anyhow::Result;
use postgres::Client;
use uuid::Uuid;

use super::{
    audit, fence, lifecycle,
    sides::{self, Side},
    stand::{STOCK, Stand, TENANTS},
    statement::{Protocol, Sender, Template, Values},
};

/// Sides that do the same work, the floor first.
pub struct Contest {
    pub name: &'static str,
    /// What is done, for the reader.
    pub what: String,
    /// At most this times the floor is allowed for ours.
    pub limit: Option<f64>,
    /// So many times less than the first side that is not ours we may add to the floor.
    pub apart: Option<f64>,
    /// How often it is done to count instructions.
    pub count: u64,
    /// How often it is done before anything is counted.
    pub warmup: u64,
    pub entries: Vec<Entry>,
}

/// Does it once more; the number says how often it was done before.
type Work = Box<dyn FnMut(&mut Client, u64) -> Result<()>>;
pub type Start = Box<dyn Fn(&Stand) -> Result<Runner>>;

pub struct Entry {
    pub label: String,
    pub is_ours: bool,
    pub start: Start,
}

/// A connection that can do the work once more.
pub struct Runner {
    pub client: Client,
    pub pid: i32,
    work: Work,
    done: u64,
}

impl Runner {
    pub fn new(mut client: Client, work: impl FnMut(&mut Client, u64) -> Result<()> + 'static) -> Result<Self> {
        let pid = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        Ok(Self { client, pid, work: Box::new(work), done: 0 })
    }

    pub fn run(&mut self, times: u64) -> Result<()> {
        for _ in 0..times {
            (self.work)(&mut self.client, self.done)?;
            self.done += 1;
        }
        Ok(())
    }

    /// Ends the session; what it has written is gone.
    pub fn end(mut self) -> Result<()> {
        self.client.batch_execute("ROLLBACK")?;
        Ok(self.client.close()?)
    }
}

const SCAN_ONLY: &str = "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off";

/// All contests of statements, in the order they are run: those that leave dead rows come last. Instructions are counted
/// (`are_counted`) of less work where valgrind would take hours.
pub fn all(are_counted: bool) -> Vec<Contest> {
    let point =
        Template("SELECT customer_id, placed, amount, note FROM orders WHERE id = {id}[ AND tenant_id = {tenant}]");
    let parted = Template("SELECT amount FROM parted WHERE id = {id}[ AND tenant_id = {tenant}]");
    let aggregate = Template("SELECT count(*), sum(amount) FROM orders[ WHERE tenant_id = {tenant}]");
    use Protocol::{Prepared, Simple};
    let mut contests = vec![
        statement("point-prepared", Some(1.02), 300, point, Prepared, ""),
        statement("point-simple", Some(1.02), 200, point, Simple, ""),
        statement(
            "list",
            Some(1.02),
            200,
            Template(
                "SELECT id, placed, amount, note FROM orders[ WHERE tenant_id = {tenant}] ORDER BY placed DESC LIMIT 50",
            ),
            Prepared,
            "",
        ),
        statement("aggregate", Some(1.02), 5, aggregate, Prepared, ""),
        Contest { warmup: 1, ..statement("scan", Some(1.03), 2, aggregate, Prepared, SCAN_ONLY) },
        statement(
            "join",
            Some(1.02),
            5,
            Template(
                "SELECT o.id, o.placed, o.amount, c.name FROM orders o JOIN customers c ON c.id = o.customer_id\
                 [ WHERE o.tenant_id = {tenant} AND c.tenant_id = {tenant}] ORDER BY o.placed DESC LIMIT 50",
            ),
            Prepared,
            "",
        ),
        statement("partitions-prepared", Some(1.0), 200, parted, Prepared, ""),
        statement("partitions-simple", Some(1.3), 20, parted, Simple, ""),
        set_tenant("set-tenant-prepared", Protocol::Prepared),
        set_tenant("set-tenant-parsed", Protocol::Simple),
        visited(),
        alternating(),
        Contest {
            warmup: 2,
            ..statement(
                "insert-bulk",
                Some(1.02),
                6,
                Template(
                    "INSERT INTO entries SELECT n, {tenant}::uuid, n, 'an entry' FROM generate_series(1, 1000) AS n",
                ),
                Prepared,
                "",
            )
        },
        statement(
            "insert-one",
            None,
            400,
            Template("INSERT INTO entries VALUES ({id}, {tenant}, 1, 'an entry')"),
            Prepared,
            "",
        ),
        statement(
            "update-one",
            None,
            300,
            Template("UPDATE skewed SET amount = 1 WHERE id = {skewed}[ AND tenant_id = {tenant}]"),
            Prepared,
            "",
        ),
        statement(
            "delete-one",
            None,
            300,
            Template("DELETE FROM skewed WHERE id = {skewed}[ AND tenant_id = {tenant}]"),
            Prepared,
            "",
        ),
    ];
    contests.extend(fence::contests());
    contests.extend(audit::contests(are_counted));
    contests.extend(lifecycle::contests());
    contests
}

fn statement(
    name: &'static str,
    limit: Option<f64>,
    count: u64,
    template: Template,
    protocol: Protocol,
    settings: &'static str,
) -> Contest {
    let entry = |side: Side, protocol: Protocol, label: &str| Entry {
        label: label.to_owned(),
        is_ours: side == Side::Ours,
        start: Box::new(move |stand| {
            let mut client = stand.app(None)?;
            client.batch_execute(&format!("SET search_path = {}; {settings}; BEGIN", side.schema()))?;
            let tenant = stand.tenants[0];
            side.enter(&mut client, tenant)?;
            let sender = Sender::new(&mut client, template, side, protocol)?;
            let (active, others) = (stand.scale.active(), stand.scale.others());
            Runner::new(client, move |client, turn| {
                // Spread over the table; all ids that are multiples of `active` are the first tenant's.
                let id = (turn * 37 % (others / active) * active) as i64;
                let skewed = (turn * 10 % others) as i64;
                sender.send(client, &Values { tenant, id, skewed })
            })
        }),
    };
    let mut entries: Vec<Entry> = sides::ALL.into_iter().map(|side| entry(side, protocol, side.label())).collect();
    if protocol == Protocol::Prepared {
        entries.push(entry(Side::Floor, Protocol::Binary, "the floor with binary parameters"));
    }
    Contest { name, what: template.0.to_owned(), limit, apart: None, count, warmup: 10, entries }
}

/// How a transaction gets its tenant: on a stock server, ours, and as people write it.
fn set_tenant(name: &'static str, protocol: Protocol) -> Contest {
    let entry = |label: &str, database: Option<&'static str>, is_ours, sql: &'static str| Entry {
        label: label.to_owned(),
        is_ours,
        start: Box::new(move |stand: &Stand| tours(stand, database, sql, protocol, 300)),
    };
    Contest {
        name,
        what: format!("BEGIN; set one of 300 tenants, 10,000 are registered; COMMIT; extended protocol, {protocol:?}"),
        limit: Some(1.2),
        apart: None,
        count: 300,
        warmup: 10,
        entries: vec![
            entry("set_config(.., true), stock server", Some(STOCK), false, SET_CONFIG),
            entry("tenancy.set_tenant($1)", None, true, SET_TENANT),
            entry("set_config(.., true), pg_tenancy", None, false, SET_CONFIG),
            entry("plpgsql function with a lookup", None, false, "SELECT custom.set_tenant($1::text::uuid)"),
            entry("SELECT $1, for comparison", Some(STOCK), false, "SELECT $1::text"),
        ],
    }
}

const SET_CONFIG: &str = "SELECT set_config('app.current_tenant_id', $1, true)";
const SET_TENANT: &str = "SELECT tenancy.set_tenant($1)";

/// Whether it gets dearer the more tenants a backend has met.
fn visited() -> Contest {
    let entry = |tenants: usize, is_ours| Entry {
        label: format!("{tenants} tenants visited"),
        is_ours,
        start: Box::new(move |stand: &Stand| tours(stand, None, SET_TENANT, Protocol::Prepared, tenants)),
    };
    Contest {
        name: "visited",
        what: "BEGIN; tenancy.set_tenant; COMMIT".to_owned(),
        limit: Some(1.02),
        apart: None,
        count: 200,
        warmup: 10,
        entries: vec![entry(100, false), entry(TENANTS, true)],
    }
}

/// Transactions that set these tenants by turns; each has been met once before.
fn tours(
    stand: &Stand,
    database: Option<&'static str>,
    sql: &'static str,
    protocol: Protocol,
    tenants: usize,
) -> Result<Runner> {
    let mut client = stand.app(database)?;
    let [begin, set, commit] = [client.prepare("BEGIN")?, client.prepare(sql)?, client.prepare("COMMIT")?];
    let texts: Vec<String> = stand.tenants[..tenants].iter().map(Uuid::to_string).collect();
    if database.is_none() {
        // Loads the library, whatever the statement.
        client.batch_execute("SELECT tenancy.has_tenant()")?;
    }
    let turn = move |client: &mut Client, tenant: &String| -> Result<()> {
        client.execute(&begin, &[])?;
        match protocol {
            Protocol::Prepared | Protocol::Binary => client.query(&set, &[tenant])?,
            Protocol::Simple => client.query_typed(sql, &[(tenant, postgres::types::Type::TEXT)])?,
        };
        client.execute(&commit, &[])?;
        Ok(())
    };
    for text in &texts {
        turn(&mut client, text)?;
    }
    Runner::new(client, move |client, number| turn(client, &texts[number as usize * 31 % texts.len()]))
}

/// A prepared query in transactions of one tenant, and of two by turns: nothing is planned anew.
fn alternating() -> Contest {
    let entry = |label: &str, is_ours, tenants: u64| Entry {
        label: label.to_owned(),
        is_ours,
        start: Box::new(move |stand: &Stand| {
            let mut client = stand.app(None)?;
            client.batch_execute("SET search_path = ours")?;
            let begin = client.prepare("BEGIN")?;
            let commit = client.prepare("COMMIT")?;
            let set = client.prepare(SET_TENANT)?;
            let query = client.prepare("SELECT amount FROM orders WHERE id = $1")?;
            let texts: Vec<String> = stand.tenants.iter().map(Uuid::to_string).collect();
            Runner::new(client, move |client, turn| {
                let tenant = turn % tenants;
                client.execute(&begin, &[])?;
                client.query(&set, &[&texts[tenant as usize]])?;
                client.query_one(&query, &[&(tenant as i64)])?;
                client.execute(&commit, &[])?;
                Ok(())
            })
        }),
    };
    Contest {
        name: "alternating",
        what: "BEGIN; tenancy.set_tenant; prepared query; COMMIT".to_owned(),
        limit: Some(1.02),
        apart: None,
        count: 300,
        warmup: 20,
        entries: vec![entry("one tenant all the time", false, 1), entry("two tenants by turns", true, 2)],
    }
}
