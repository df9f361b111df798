//! What the hooks cost: the same server and data with and without shared_preload_libraries.

use anyhow::{Context, Result};
use postgres::{Client, Statement};

use super::{
    contests::{Contest, Entry, Runner},
    facts::Fact,
    ground::{FENCE, MANY, Preload},
    on_cpu,
    stand::{STOCK, Stand},
    table::{Sample, grouped},
};

/// A transaction like pgbench's TPC-B: three updates, a query, an insert.
const STEPS: [&str; 5] = [
    "UPDATE accounts SET abalance = abalance + $1 WHERE aid = $2",
    "SELECT abalance FROM accounts WHERE aid = $1",
    "UPDATE tellers SET tbalance = tbalance + $1 WHERE tid = $2",
    "UPDATE branches SET bbalance = bbalance + $1 WHERE bid = $2",
    "INSERT INTO history (tid, aid, delta, mtime, tenant_id) VALUES ($1, $2, $3, CURRENT_TIMESTAMP, $4)",
];

pub fn contests() -> Vec<Contest> {
    let bank = |label: &str, preload, strict, schema, is_ours| Entry {
        label: label.to_owned(),
        is_ours,
        start: Box::new(move |stand: &Stand| transactions(stand, preload, strict, schema)),
    };
    let point = |label: &str, database, is_ours| Entry {
        label: label.to_owned(),
        is_ours,
        start: Box::new(move |stand: &Stand| points(stand, database)),
    };
    vec![
        Contest {
            name: "fence-tpcb",
            what: "BEGIN; set_tenant; TPC-B on protected tables; COMMIT; prepared".to_owned(),
            limit: Some(1.03),
            apart: None,
            count: 500,
            warmup: 100,
            entries: vec![
                bank("loaded at first use", Preload::No, false, "bank", false),
                bank("shared_preload_libraries", Preload::Yes, false, "bank", true),
                bank("the same, tenancy.strictness = strict", Preload::Yes, true, "bank", true),
                bank("for comparison: unprotected, not loaded", Preload::No, false, "loose", false),
            ],
        },
        Contest {
            name: "fence-unprotected",
            what: "BEGIN; TPC-B on tables without protection; COMMIT; prepared".to_owned(),
            limit: Some(1.01),
            apart: None,
            count: 500,
            warmup: 100,
            entries: vec![
                bank("never loaded", Preload::No, false, "loose", false),
                bank("shared_preload_libraries", Preload::Yes, false, "loose", true),
                bank("the same, tenancy.strictness = strict", Preload::Yes, true, "loose", true),
            ],
        },
        Contest {
            name: "fence-many",
            what: "a prepared query of one protected table, preloaded".to_owned(),
            limit: Some(1.02),
            apart: None,
            count: 300,
            warmup: 20,
            entries: vec![
                point("4 protected tables in the database", FENCE, false),
                point("1,004 protected tables", MANY, true),
            ],
        },
    ]
}

fn transactions(stand: &Stand, preload: Preload, strict: bool, schema: &'static str) -> Result<Runner> {
    let mut client = stand.ground()?.connect(preload, FENCE, strict)?;
    client.batch_execute(&format!("SET search_path = {schema}"))?;
    let [begin, commit] = [client.prepare("BEGIN")?, client.prepare("COMMIT")?];
    let steps = STEPS.map(|sql| client.prepare(sql)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let set = if schema == "bank" { Some(client.prepare("SELECT tenancy.set_tenant($1)")?) } else { None };
    let tenants = stand.tenants[..10].to_vec();
    Runner::new(client, move |client, turn| {
        // The same accounts on every side; each branch is a tenant, and ids that end in its number are its own.
        let branch = (turn % 10) as i32;
        let (aid, tid) = ((turn * 7919 % 10_000) as i32 * 10 + branch, (turn % 10) as i32 * 10 + branch);
        let (bid, delta, tenant) = (branch + 1, 1_i32, tenants[branch as usize]);
        client.execute(&begin, &[])?;
        if let Some(set) = &set {
            client.query(set, &[&tenant.to_string()])?;
        }
        client.execute(&steps[0], &[&delta, &aid])?;
        client.query_one(&steps[1], &[&aid])?;
        client.execute(&steps[2], &[&delta, &tid])?;
        client.execute(&steps[3], &[&delta, &bid])?;
        client.execute(&steps[4], &[&tid, &aid, &delta, &tenant])?;
        client.execute(&commit, &[])?;
        Ok(())
    })
}

fn points(stand: &Stand, database: &'static str) -> Result<Runner> {
    let mut client = stand.ground()?.connect(Preload::Yes, database, false)?;
    let query = client.prepare("SELECT abalance FROM bank.accounts WHERE aid = $1")?;
    client.batch_execute("BEGIN; SELECT tenancy.set_tenant('branch-1')")?;
    Runner::new(client, move |client, turn| {
        client.query_one(&query, &[&((turn * 37 % 10_000) as i32 * 10)])?;
        Ok(())
    })
}

pub fn facts() -> Vec<Fact> {
    vec![
        Fact {
            name: "fence-first-query",
            what: "tables that a session's first query scans from end to end, with 1,004 protected tables, preloaded",
            tell: first_query,
        },
        Fact {
            name: "fence-ddl",
            what: "what a CREATE TABLE costs more with the guard than on a server without the extension, in us on CPU",
            tell: create_table,
        },
    ]
}

fn first_query(stand: &Stand, _rounds: u64) -> Result<bool> {
    let ground = stand.ground()?;
    // What a look at protection reads; named for one who may see the private schema.
    let watched = ground.superuser(Preload::Yes, MANY)?.query(
        "SELECT oid, oid::regclass::text FROM pg_class
          WHERE relkind = 'r' AND (relnamespace IN ('tenancy'::regnamespace, 'tenancy_internal'::regnamespace)
                OR relnamespace = 'pg_catalog'::regnamespace)",
        &[],
    )?;
    let oids: Vec<u32> = watched.iter().map(|row| row.get(0)).collect();
    let mut client = ground.connect(Preload::Yes, MANY, false)?;
    client.batch_execute(
        "BEGIN; SELECT tenancy.set_tenant('branch-1'); SELECT abalance FROM bank.accounts WHERE aid = 0",
    )?;
    // In the same transaction, whose own counts are the only ones that are there at once; this query scans no table.
    let scanned = client.query(
        "SELECT n, pg_stat_get_xact_tuples_returned(oid)
           FROM unnest($1::oid[]) WITH ORDINALITY AS watched (oid, n) WHERE pg_stat_get_xact_tuples_returned(oid) > 0",
        &[&oids],
    )?;
    let scanned: Vec<(String, i64)> =
        scanned.iter().map(|row| (watched[row.get::<_, i64>(0) as usize - 1].get(1), row.get(1))).collect();
    let names: Vec<String> = scanned.iter().map(|(name, rows)| format!("{name} ({rows} rows)")).collect();
    // The registry's few rows may be read as a whole; what grows with the number of tables may not.
    let kept = scanned.iter().all(|(_, rows)| *rows < 1000);
    println!(
        "  {} {}",
        if names.is_empty() { "none".to_owned() } else { names.join(", ") },
        if kept { "pass" } else { "MISS" }
    );
    Ok(kept)
}

/// CREATE TABLEs of one round, in one transaction that is rolled back.
const TABLES: u64 = 25;
const DDL_LIMIT: f64 = 2000.0;

/// A session that makes tables; the columns decide what the guard has to look at.
struct Maker {
    label: &'static str,
    client: Client,
    pid: i32,
    statements: Vec<Statement>,
    sample: Sample,
}

fn create_table(stand: &Stand, rounds: u64) -> Result<bool> {
    let (plain, tenants) =
        ("(id int PRIMARY KEY, item text)", "(id int PRIMARY KEY, tenant_id uuid NOT NULL, item text)");
    let sides = [
        ("no extension, no tenant column", Preload::No, STOCK, plain),
        ("no extension, tenant column", Preload::No, STOCK, tenants),
        ("loaded at first use, no tenant column", Preload::No, FENCE, plain),
        ("loaded at first use, tenant column", Preload::No, FENCE, tenants),
        ("preloaded, no tenant column", Preload::Yes, FENCE, plain),
        ("preloaded, tenant column", Preload::Yes, FENCE, tenants),
    ];
    let mut makers = Vec::new();
    for (label, preload, database, columns) in sides {
        let mut client = stand.ground()?.connect(preload, database, false)?;
        client.batch_execute("SET client_min_messages = error")?;
        let pid = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let statements = (0..TABLES)
            .map(|n| client.prepare(&format!("CREATE TABLE home.bench_{n} {columns}")))
            .collect::<Result<Vec<_>, _>>()?;
        makers.push(Maker { label, client, pid, statements, sample: Sample::default() });
    }
    for round in 0..rounds as usize + 1 {
        for turn in 0..makers.len() {
            let side = (round + turn) % makers.len();
            let maker = &mut makers[side];
            maker.client.batch_execute("BEGIN")?;
            let before = on_cpu(maker.pid)?;
            for statement in &maker.statements {
                maker.client.execute(statement, &[]).with_context(|| maker.label)?;
            }
            let spent = on_cpu(maker.pid)? - before;
            maker.client.batch_execute("ROLLBACK")?;
            // The first round loads the library and fills the caches.
            if round > 0 {
                maker.sample.push(spent as f64 / TABLES as f64 / 1000.0);
            }
        }
    }
    println!("  {:<44} {:>14} {:>14}", "", "us on CPU", "more");
    let mut kept = true;
    for (at, maker) in makers.iter().enumerate() {
        let more = maker.sample.median() - makers[at % 2].sample.median();
        let verdict = match at {
            0 | 1 => "",
            _ if more <= DDL_LIMIT => "<= 2,000 pass",
            _ => "<= 2,000 MISS",
        };
        kept &= at < 2 || more <= DDL_LIMIT;
        println!("  {:<44} {:>14} {:>14} {verdict}", maker.label, grouped(maker.sample.median()), grouped(more));
    }
    Ok(kept)
}
