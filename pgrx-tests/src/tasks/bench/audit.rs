//! What an audit costs: the log of this extension beside those that plpgsql triggers write as jsonb.

use anyhow::{Context, Result};
use postgres::Client;

use super::{
    contests::{Contest, Entry, Runner},
    facts::Fact,
    stand::Stand,
    table::grouped,
};

/// Tables of `bench/audit.sql`, the unaudited one first.
const SIDES: [(&str, &str); 5] = [
    ("unaudited", "unaudited"),
    ("diff", "pg_tenancy"),
    ("full", "pg_tenancy, row_images => 'full'"),
    ("for_row", "plpgsql row trigger, jsonb"),
    ("for_statement", "plpgsql statement trigger, jsonb"),
];

/// Ids above those that are there from the beginning.
const FIRST_NEW_ID: i64 = 1_000_000;

/// `are_counted`: a row's instructions are the same in ten thousand rows as in a hundred thousand.
pub fn contests(are_counted: bool) -> Vec<Contest> {
    let rows = if are_counted { 10_000 } else { 100_000 };
    let rolled_back = |name, what: &str, limit, apart, sql: &str| Contest {
        name,
        what: format!("{what}, in a transaction that is rolled back"),
        limit: Some(limit),
        apart: Some(apart),
        count: 1,
        // What a session does the first time cancels out when it is counted.
        warmup: u64::from(!are_counted),
        entries: entries(|table| sql.replace("{table}", table), false),
    };
    vec![
        Contest {
            name: "audit-insert-one",
            what: "BEGIN; set_tenant; INSERT of one row; COMMIT; prepared".to_owned(),
            limit: Some(1.3),
            apart: Some(3.0),
            count: 200,
            warmup: 20,
            entries: entries(
                |table| {
                    format!(
                        "INSERT INTO audit.\"{table}\" VALUES ($1, tenancy.current_tenant_id(), 7, 'customer number 7', 8.75, \
                         'open', '2026-01-01 00:00:07+00', 7, true, '7 some street in some town', '2026-01-08', \
                         '8f14e45fceea167a5a36dedd4bea2543')"
                    )
                },
                true,
            ),
        },
        rolled_back(
            "audit-insert",
            &format!("INSERT ... SELECT of {} rows", grouped(f64::from(rows))),
            1.4,
            7.0,
            &format!(
                "INSERT INTO audit.\"{{table}}\" SELECT id + $1, tenant_id, number, name, amount, status, placed, quantity, \
                 active, address, due, note FROM audit.source WHERE id <= {rows}"
            ),
        ),
        rolled_back(
            "audit-update",
            "UPDATE of 10,000 rows",
            1.4,
            4.0,
            "UPDATE audit.\"{table}\" SET quantity = quantity + 1, status = 'paid' WHERE id <= 10000 AND $1 > 0::bigint",
        ),
        rolled_back(
            "audit-delete",
            "DELETE of 10,000 rows",
            2.5,
            3.0,
            "DELETE FROM audit.\"{table}\" WHERE id <= 10000 AND $1 > 0::bigint",
        ),
    ]
}

fn entries(sql: impl Fn(&str) -> String, commits: bool) -> Vec<Entry> {
    SIDES
        .iter()
        .map(|(table, label)| {
            let sql = sql(table);
            Entry {
                label: (*label).to_owned(),
                is_ours: *table == "diff",
                start: Box::new(move |stand: &Stand| start(stand, &sql, commits)),
            }
        })
        .collect()
}

fn start(stand: &Stand, sql: &str, commits: bool) -> Result<Runner> {
    let mut client = stand.app(None)?;
    client.batch_execute("SET app.current_user_id = 'alice'; SET app.client_ip = '192.0.2.7'")?;
    let [begin, set_tenant, end] = [
        client.prepare("BEGIN")?,
        client.prepare("SELECT tenancy.set_tenant($1)")?,
        client.prepare(if commits { "COMMIT" } else { "ROLLBACK" })?,
    ];
    let work = client.prepare(sql)?;
    let tenant = stand.tenants[0].to_string();
    // Each turn of each session has ids of its own: the dead rows of another must not be in the way.
    let session: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let first = FIRST_NEW_ID * (1 + i64::from(session) % 1_000_000) * 1_000;
    Runner::new(client, move |client, turn| {
        let step = if commits { 1 } else { 100_000 };
        let id = first + turn as i64 * step;
        client.execute(&begin, &[])?;
        client.query(&set_tenant, &[&tenant])?;
        client.execute(&work, &[&id])?;
        client.execute(&end, &[])?;
        Ok(())
    })
}

pub fn facts() -> Vec<Fact> {
    vec![Fact {
        name: "audit-bytes",
        what: "bytes of log, with its indexes, and bytes of WAL more than unaudited, per row",
        tell: bytes,
    }]
}

/// Statements of which the bytes are counted, with the rows they write.
const COUNTED: [(&str, i64, &str); 3] = [
    (
        "INSERT ... SELECT of 100,000 rows",
        100_000,
        "INSERT INTO audit.\"{table}\" SELECT id + 500000000000, tenant_id, number, name, amount, status, placed, quantity, \
         active, address, due, note FROM audit.source",
    ),
    (
        "UPDATE of 10,000 rows",
        10_000,
        "UPDATE audit.\"{table}\" SET quantity = quantity + 1, status = 'paid' WHERE id <= 10000",
    ),
    ("DELETE of 10,000 rows", 10_000, "DELETE FROM audit.\"{table}\" WHERE id BETWEEN 500000000001 AND 500000010000"),
];
const MOST_BYTES: f64 = 0.4;
const MOST_WAL: f64 = 0.25;

fn bytes(stand: &Stand, _rounds: u64) -> Result<bool> {
    let mut client = stand.superuser()?;
    let mut kept = true;
    for (what, rows, sql) in COUNTED {
        let mut spent = Vec::new();
        for (table, _) in SIDES {
            spent.push(spend(&mut client, &sql.replace("{table}", table)).with_context(|| table.to_owned())?);
        }
        let wal = |at: usize| (spent[at].1 - spent[0].1) as f64 / rows as f64;
        let log = |at: usize| spent[at].0 as f64 / rows as f64;
        println!("  {what:<44} {:>8} {:>8} {:>8} {:>8}", "log", "of row", "WAL", "of row");
        for (at, (table, label)) in SIDES.iter().enumerate().skip(1) {
            let (of_log, of_wal) = (log(at) / log(3), wal(at) / wal(3));
            let is_kept = of_log <= MOST_BYTES && of_wal <= MOST_WAL;
            let verdict = match *table {
                "diff" if is_kept => "<= 0.40, 0.25 pass",
                "diff" => "<= 0.40, 0.25 MISS",
                _ => "",
            };
            kept &= *table != "diff" || is_kept;
            let (log, wal) = (grouped(log(at)), grouped(wal(at)));
            println!("    {label:<42} {log:>8} {of_log:>8.3} {wal:>8} {of_wal:>8.3} {verdict}");
        }
    }
    Ok(kept)
}

/// Bytes that the logs, and the WAL, grow by.
fn spend(client: &mut Client, sql: &str) -> Result<(i64, i64)> {
    client.batch_execute("VACUUM")?;
    client.batch_execute("CHECKPOINT")?;
    let logs = |client: &mut Client| -> Result<i64> {
        let sql = "SELECT (pg_total_relation_size('audit.log')
                           + sum(pg_total_relation_size(inhrelid)))::bigint
                     FROM pg_inherits WHERE inhparent = 'tenancy_internal.audit_chunks'::regclass";
        Ok(client.query_one(sql, &[])?.get(0))
    };
    let wal = |client: &mut Client| -> Result<i64> {
        Ok(client.query_one("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint", &[])?.get(0))
    };
    let (log, begun) = (logs(client)?, wal(client)?);
    client.batch_execute(sql)?;
    Ok((logs(client)? - log, wal(client)? - begun))
}
