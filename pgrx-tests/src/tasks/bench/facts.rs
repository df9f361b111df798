//! What is no ratio of two sides: estimates, memory, and sixteen writers, and the time that a token takes.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use postgres::Client;

use super::{
    audit, fence, integrity, lifecycle, on_cpu,
    sides::{self, Side},
    stand::{STOCK, Stand, TENANTS},
    statement::{Template, Values},
    table::{Sample, grouped},
    tokens,
};

pub struct Fact {
    pub name: &'static str,
    pub what: &'static str,
    /// Prints it; whether it is as it must be.
    pub tell: fn(&Stand, u64) -> Result<bool>,
}

pub fn all() -> Vec<Fact> {
    let mut facts = vec![
        Fact { name: "estimate", what: "rows the planner expects of a tenant with 60 % of them", tell: estimate },
        Fact {
            name: "memory",
            what: "what a backend grows by when it visits 10,000 tenants (RssAnon of /proc/<pid>/status)",
            tell: memory,
        },
        Fact {
            name: "writers",
            what: "16 writers of one tenant, one insert a transaction: protect_table(reference => 'policy' | 'foreign_key')",
            tell: writers,
        },
        Fact { name: "token", what: "what set_tenant_signed costs more than set_tenant, per call", tell: tokens::tell },
    ];
    facts.extend(fence::facts());
    facts.extend(audit::facts());
    facts.extend(integrity::facts());
    facts.extend(lifecycle::facts());
    facts
}

fn estimate(stand: &Stand, _rounds: u64) -> Result<bool> {
    let query = Template("SELECT * FROM skewed[ WHERE tenant_id = {tenant}]");
    let truth = (stand.scale.others() * 6 / 10) as f64;
    println!("  {:<44} {:>14} {:>8}", "", "rows", "of truth");
    println!("  {:<44} {:>14}", "truth", grouped(truth));
    let mut kept = true;
    for side in sides::ALL {
        let mut client = stand.app(None)?;
        client.batch_execute(&format!("SET search_path = {}; BEGIN", side.schema()))?;
        let tenant = stand.tenants[0];
        side.enter(&mut client, tenant)?;
        let values = Values { tenant, id: 0, skewed: 0 };
        let sql = format!("EXPLAIN (FORMAT JSON) {}", query.literal(side, &values));
        let plan: serde_json::Value = client.query_one(&sql, &[])?.get(0);
        let rows = plan[0]["Plan"]["Plan Rows"].as_f64().context("a plan has rows")?;
        let ratio = rows / truth;
        let within = (0.5..=2.0).contains(&ratio);
        let is_ours = side == Side::Ours;
        let note = match (is_ours, within) {
            (false, _) => "",
            (true, true) => "within 2x pass",
            (true, false) => "within 2x MISS",
        };
        println!("  {:<44} {:>14} {ratio:>8.3} {note}", side.label(), grouped(rows));
        kept &= within || !is_ours;
    }
    Ok(kept)
}

/// Bytes of a backend's own memory: malloc's, Rust's and PostgreSQL's alike.
pub fn own_memory(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no RssAnon"))? * 1024)
}

const CACHE_LIMIT: u64 = 4 << 20;

fn memory(stand: &Stand, _rounds: u64) -> Result<bool> {
    println!("  {:<44} {:>14} {:>14}", "", "first visits", "again");
    let stock = growth(stand.app(Some(STOCK))?, "SELECT set_config('app.current_tenant_id', $1, true)", stand)?;
    println!("  {:<44} {:>14} {:>14}", "set_config, stock server", grouped(stock.0), grouped(stock.1));
    let ours = growth(stand.app(None)?, "SELECT tenancy.set_tenant($1)", stand)?;
    let kept = ours.0 - stock.0 <= CACHE_LIMIT as f64;
    println!(
        "  {:<44} {:>14} {:>14} <= {} {}",
        "tenancy.set_tenant",
        grouped(ours.0),
        grouped(ours.1),
        grouped(CACHE_LIMIT as f64),
        if kept { "pass" } else { "MISS" }
    );
    Ok(kept)
}

/// What a session grows by in a first and a second tour of all tenants.
fn growth(mut client: Client, sql: &str, stand: &Stand) -> Result<(f64, f64)> {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let set = client.prepare(sql)?;
    let mut tour = |tenants: usize| -> Result<u64> {
        for tenant in &stand.tenants[..tenants] {
            client.batch_execute("BEGIN")?;
            client.query(&set, &[&tenant.to_string()])?;
            client.batch_execute("COMMIT")?;
        }
        own_memory(pid)
    };
    // What every session needs once is not the cache's.
    let (start, first, second) = (tour(10)?, tour(TENANTS)?, tour(TENANTS)?);
    Ok((first as f64 - start as f64, second as f64 - first as f64))
}

const WRITERS: usize = 16;
const WRITING: Duration = Duration::from_secs(1);

fn writers(stand: &Stand, rounds: u64) -> Result<bool> {
    let tables = ["entries_policy", "entries_reference"];
    let mut admin = stand.superuser()?;
    let mut rates = [Sample::default(), Sample::default()];
    let mut times = [Sample::default(), Sample::default()];
    for round in 0..rounds as usize {
        for turn in 0..2 {
            let side = (round + turn) % 2;
            admin.batch_execute(&format!("TRUNCATE ours.{}", tables[side]))?;
            let (inserts, on_cpu) = write(stand, tables[side])?;
            rates[side].push(inserts as f64 / WRITING.as_secs_f64());
            times[side].push(on_cpu as f64 / inserts as f64 / 1000.0);
        }
    }
    println!("  {:<44} {:>14} {:>14} {:>8}", "", "inserts / s", "us on CPU", "ratio");
    for (side, label) in ["reference => 'policy'", "reference => 'foreign_key'"].iter().enumerate() {
        let ratios = times[side].over(&times[0]);
        println!(
            "  {label:<44} {:>14} {:>14.1} {:>8.3} {:.3} .. {:.3}",
            grouped(rates[side].median()),
            times[side].median(),
            times[side].median() / times[0].median(),
            ratios.quantile(0.25),
            ratios.quantile(0.75)
        );
    }
    Ok(true)
}

/// Inserts of all writers, and their backends' time on a CPU.
fn write(stand: &Stand, table: &str) -> Result<(u64, u64)> {
    let tenant = stand.tenants[0].to_string();
    let clients = (0..WRITERS).map(|_| stand.app(None)).collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let (tenant, table) = (tenant.clone(), table.to_owned());
            thread::spawn(move || -> Result<(u64, u64)> {
                let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
                let statements = ["BEGIN", "SELECT tenancy.set_tenant($1)", "COMMIT"]
                    .into_iter()
                    .map(|sql| client.prepare(sql))
                    .collect::<Result<Vec<_>, _>>()?;
                let insert = client.prepare(&format!("INSERT INTO ours.{table} (id, amount) VALUES ($1, 1)"))?;
                let (before, mut done) = (on_cpu(pid)?, 0);
                while begun.elapsed() < WRITING {
                    client.execute(&statements[0], &[])?;
                    client.query(&statements[1], &[&tenant])?;
                    client.execute(&insert, &[&(done as i64)])?;
                    client.execute(&statements[2], &[])?;
                    done += 1;
                }
                Ok((done, on_cpu(pid)? - before))
            })
        })
        .collect();
    let mut sum = (0, 0);
    for thread in threads {
        let (inserts, spent) = thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        sum = (sum.0 + inserts, sum.1 + spent);
    }
    Ok(sum)
}
