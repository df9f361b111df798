//! What the end of a tenant costs: a purge beside the DELETEs that one would write by hand, and beside others at work.
//! What stamps and soft delete add to a row.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use postgres::Client;

use super::{
    contests::{Contest, Entry, Runner},
    facts::{Fact, own_memory},
    on_cpu, schedule,
    stand::Stand,
    table::{Sample, grouped},
};

/// The database of `bench/lifecycle.sql`, and of `bench/lifecycle_partitions.sql`.
const SHOP: &str = "shop";
const PARTED: &str = "parted";
/// Where a copy of either is used up.
const COPY: &str = "used_up";

pub fn facts() -> Vec<Fact> {
    vec![
        Fact {
            name: "purge",
            what: "purge of a tenth of the rows of 12 tables, beside DELETEs by tenant in one transaction, on copies of a database",
            tell: purge,
        },
        Fact {
            name: "purge-partition",
            what: "purge of a tenant that has a partition of its own in each of 4 tables, in ms",
            tell: partition,
        },
        Fact {
            name: "purge-beside",
            what: "transactions of two clients of other tenants while a purge with pause_ms runs, against before and after it",
            tell: beside,
        },
        Fact {
            name: "retention",
            what: "retention that removes half of a table, beside the DELETE of these rows, on copies of a database",
            tell: retention,
        },
    ]
}

/// Children before their parents.
const BY_HAND: [&str; 12] = [
    "order_lines",
    "payments",
    "invoices",
    "shipments",
    "orders",
    "addresses",
    "comments",
    "tickets",
    "customers",
    "products",
    "events",
    "documents",
];
const PURGE: &str = "CALL tenancy.purge_tenant('tenant-1', confirm => 'tenant-1', dry_run => false)";

/// The copies of ten million rows are gigabytes.
const MOST_ROUNDS: u64 = 3;
const CPU_LIMIT: f64 = 1.6;
/// The hundredth is for pruning: the count at the end is the first to read the pages after the DELETE's commit, which the
/// next query or VACUUM is after a DELETE by hand.
const WAL_LIMIT: f64 = 1.01;
const MEMORY_LIMIT: f64 = (16 << 20) as f64;

/// What one side took, a figure a round.
#[derive(Default)]
struct Spent {
    cpu: Sample,
    wal: Sample,
    memory: Sample,
    wall: Sample,
}

fn purge(stand: &Stand, rounds: u64) -> Result<bool> {
    stand.make_database(SHOP, "lifecycle.sql")?;
    // As in production: most WAL of a DELETE is the pages that are written for the first time since the checkpoint.
    let mut admin = stand.superuser()?;
    admin.batch_execute("ALTER SYSTEM SET full_page_writes = on")?;
    admin.batch_execute("SELECT pg_reload_conf()")?;
    let told = tell_purge(stand, rounds);
    admin.batch_execute("ALTER SYSTEM RESET full_page_writes")?;
    admin.batch_execute("SELECT pg_reload_conf()")?;
    told
}

fn tell_purge(stand: &Stand, rounds: u64) -> Result<bool> {
    let each = |verb: &str| {
        let of_tenant = "WHERE tenant_id = pg_catalog.md5('shop1')::uuid";
        BY_HAND.map(|table| format!("{verb} FROM shop.{table} {of_tenant};")).concat()
    };
    let deletes = format!("BEGIN; {} COMMIT;", each("DELETE"));
    let sides = [
        ("DELETE by hand", deletes.clone()),
        ("the same, and count(*) after it", format!("{deletes} {}", each("SELECT count(*)"))),
        ("tenancy.purge_tenant", PURGE.to_owned()),
    ];
    let mut spent = [(); 3].map(|()| Spent::default());
    for round in 0..rounds.min(MOST_ROUNDS) as usize {
        for turn in 0..sides.len() {
            let side = (round + turn) % sides.len();
            stand.copy_database(SHOP, COPY)?;
            spend(stand, &sides[side].1, &mut spent[side]).with_context(|| sides[side].0)?;
            let left = rows_left(&mut stand.superuser_of(COPY)?)?;
            let others = stand.purged / 10 * 9;
            ensure!(left == others, "{} has left {left} rows where others have {others}", sides[side].0);
        }
    }
    stand.drop_database(COPY)?;
    println!("  {:<32} {:>12} {:>16} {:>16} {:>12}", "", "ms on CPU", "bytes of WAL", "memory", "ms in all");
    for ((label, _), side) in sides.iter().zip(&spent) {
        println!(
            "  {label:<32} {:>12} {:>16} {:>16} {:>12}",
            grouped(side.cpu.median()),
            grouped(side.wal.median()),
            grouped(side.memory.median()),
            grouped(side.wall.median())
        );
    }
    let [by_hand, counted, ours] = &spent;
    let cpu = within("time on CPU", &ours.cpu, &by_hand.cpu, Some(CPU_LIMIT));
    let wal = within("WAL", &ours.wal, &by_hand.wal, Some(WAL_LIMIT));
    within("WAL, with the count", &ours.wal, &counted.wal, None);
    within("time in all", &ours.wall, &by_hand.wall, None);
    let flat = ours.memory.median() <= MEMORY_LIMIT;
    println!(
        "  {:<32} {:>12} <= {} {}",
        "memory",
        grouped(ours.memory.median()),
        grouped(MEMORY_LIMIT),
        if flat { "pass" } else { "MISS" }
    );
    Ok(cpu & wal & flat)
}

/// Rows are found and locked first, then removed, in batches of which each is on record; a DELETE does one of these.
const RETENTION_LIMIT: f64 = 6.0;

fn retention(stand: &Stand, rounds: u64) -> Result<bool> {
    stand.make_database(SHOP, "lifecycle.sql")?;
    // Of events: a second apart, all long ago.
    let due = stand.purged / 100 * 10 / 2;
    let first = format!("timestamptz '2026-01-01' + {due} * interval '1 s'");
    let sides = [
        ("DELETE by hand", format!("DELETE FROM shop.events WHERE at < {first}")),
        ("tenancy.run_retention", "CALL tenancy.run_retention()".to_owned()),
    ];
    let mut spent = [(); 2].map(|()| Spent::default());
    for round in 0..rounds.min(MOST_ROUNDS) as usize {
        for turn in 0..sides.len() {
            let side = (round + turn) % sides.len();
            stand.copy_database(SHOP, COPY)?;
            let mut client = stand.superuser_of(COPY)?;
            client.batch_execute(&format!("SELECT tenancy.set_retention('shop.events', 'at', now() - ({first}))"))?;
            client.close()?;
            spend(stand, &sides[side].1, &mut spent[side]).with_context(|| sides[side].0)?;
            let left = "SELECT count(*) FROM shop.events WHERE at < ";
            let mut client = stand.superuser_of(COPY)?;
            let left: i64 = client.query_one(&format!("{left}{first}"), &[])?.get(0);
            client.close()?;
            // What became due between the rule and the run.
            ensure!(left == 0, "{} has left {left} rows that are due", sides[side].0);
        }
    }
    stand.drop_database(COPY)?;
    println!("  {:<32} {:>12} {:>16} {:>12}", "", "ms on CPU", "bytes of WAL", "ms in all");
    for ((label, _), side) in sides.iter().zip(&spent) {
        let [cpu, wal, wall] = [&side.cpu, &side.wal, &side.wall].map(|sample| grouped(sample.median()));
        println!("  {label:<32} {cpu:>12} {wal:>16} {wall:>12}");
    }
    let [by_hand, ours] = &spent;
    let kept = within("time on CPU", &ours.cpu, &by_hand.cpu, Some(RETENTION_LIMIT));
    within("WAL", &ours.wal, &by_hand.wal, None);
    within("time in all", &ours.wall, &by_hand.wall, None);
    Ok(kept)
}

/// Prints a ratio; whether it is within its limit.
fn within(what: &str, ours: &Sample, floor: &Sample, limit: Option<f64>) -> bool {
    let (ratio, rounds) = (ours.median() / floor.median(), ours.over(floor));
    let kept = limit.is_none_or(|limit| ratio <= limit);
    let verdict =
        limit.map(|limit| format!("<= {limit:.2} {}", if kept { "pass" } else { "MISS" })).unwrap_or_default();
    println!("  {what:<32} {ratio:>12.3} {:.3} .. {:.3} {verdict}", rounds.quantile(0.0), rounds.quantile(1.0));
    kept
}

/// Runs it in a session of its own, which is looked at from outside.
fn spend(stand: &Stand, statements: &str, spent: &mut Spent) -> Result<()> {
    let mut client = stand.superuser_of(COPY)?;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let (memory, wal, cpu, begun) = (own_memory(pid)?, wal(&mut client)?, on_cpu(pid)?, Instant::now());
    let is_over = AtomicBool::new(false);
    let most = thread::scope(|scope| -> Result<u64> {
        let watch = scope.spawn(|| -> Result<u64> {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(own_memory(pid)?);
                thread::sleep(Duration::from_millis(20));
            }
            Ok(most)
        });
        let ran = client.batch_execute(statements);
        is_over.store(true, Ordering::Relaxed);
        let most = watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?;
        ran?;
        most
    })?;
    spent.wall.push(begun.elapsed().as_secs_f64() * 1e3);
    spent.cpu.push((on_cpu(pid)? - cpu) as f64 / 1e6);
    spent.wal.push((self::wal(&mut client)? - wal) as f64);
    spent.memory.push(most as f64 - memory as f64);
    Ok(client.close()?)
}

/// Where the WAL ends, in bytes.
fn wal(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint", &[])?.get(0))
}

fn rows_left(client: &mut Client) -> Result<u64> {
    let counts = BY_HAND.map(|table| format!("(SELECT count(*) FROM shop.{table})")).join(" + ");
    Ok(client.query_one(&format!("SELECT {counts}"), &[])?.get::<_, i64>(0) as u64)
}

const PARTITIONED_TABLES: f64 = 4.0;
const PARTITION_LIMIT: f64 = 50.0;

fn partition(stand: &Stand, rounds: u64) -> Result<bool> {
    stand.make_database(PARTED, "lifecycle_partitions.sql")?;
    let large = stand.purged / 10;
    let sides = [("small", large / 100), ("large", large)];
    let mut spent = [Spent::default(), Spent::default()];
    // What others on the machine did meanwhile is not the purge's.
    let mut alone = [Sample::default(), Sample::default()];
    for round in 0..rounds as usize {
        for turn in 0..2 {
            let side = (round + turn) % 2;
            stand.copy_database(PARTED, COPY)?;
            let mut client = stand.superuser_of(COPY)?;
            let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
            let tenant = sides[side].0;
            let ([cpu, waited], begun) = (schedule(pid)?, Instant::now());
            client.batch_execute(&format!(
                "CALL tenancy.purge_tenant('{tenant}', confirm => '{tenant}', dry_run => false)"
            ))?;
            let in_all = begun.elapsed().as_secs_f64() * 1e3;
            let after = schedule(pid)?;
            spent[side].cpu.push((after[0] - cpu) as f64 / 1e6);
            spent[side].wall.push(in_all);
            alone[side].push(in_all - (after[1] - waited) as f64 / 1e6);
            let left = client.query_one("SELECT to_regclass('parted.events_' || $1) IS NULL", &[&tenant])?;
            ensure!(left.get::<_, bool>(0), "the partition of {tenant} is still there");
            client.close()?;
        }
    }
    stand.drop_database(COPY)?;
    println!("  {:<36} {:>8} {:>8} {:>22} {:>10}", "", "on CPU", "in all", "but waits for a CPU", "per table");
    let mut kept = true;
    for (((_, rows), side), alone) in sides.iter().zip(&spent).zip(&alone) {
        let per_table = alone.median() / PARTITIONED_TABLES;
        kept &= per_table <= PARTITION_LIMIT;
        println!(
            "  {:<36} {:>8.1} {:>8.1} {:>22.1} {per_table:>10.1} <= {PARTITION_LIMIT} {}",
            format!("{} rows in each partition", grouped(*rows as f64)),
            side.cpu.median(),
            side.wall.median(),
            alone.median(),
            if per_table <= PARTITION_LIMIT { "pass" } else { "MISS" }
        );
    }
    Ok(kept)
}

const CLIENTS: u64 = 2;
const BATCH: u64 = 1000;
const PAUSE: u64 = 100;
const MOST_LOST: f64 = 0.1;
/// How long they work without a purge, before it and after it.
const ALONE: Duration = Duration::from_secs(3);

fn beside(stand: &Stand, rounds: u64) -> Result<bool> {
    stand.make_database(SHOP, "lifecycle.sql")?;
    let mut rates = [Sample::default(), Sample::default()];
    let mut purges = Sample::default();
    for _ in 0..rounds.min(MOST_ROUNDS) {
        stand.copy_database(SHOP, COPY)?;
        let clients = (0..CLIENTS).map(|_| stand.app(Some(COPY))).collect::<Result<Vec<_>>>()?;
        let (rows, is_over, done) = (stand.purged / 10, AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| -> Result<()> {
            let (is_over, done) = (&is_over, &done);
            let clients: Vec<_> = (0..)
                .zip(clients)
                .map(|(number, client)| scope.spawn(move || work(client, number, rows, is_over, done)))
                .collect();
            let measured = rates_beside(stand, done);
            is_over.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            let (alone, during, seconds) = measured?;
            rates[0].push(alone);
            rates[1].push(during);
            purges.push(seconds);
            Ok(())
        })?;
    }
    stand.drop_database(COPY)?;
    let ratios = rates[1].over(&rates[0]);
    let lost = 1.0 - rates[1].median() / rates[0].median();
    let kept = lost <= MOST_LOST;
    println!("  {:<44} {:>14} {:>8}", "", "per second", "lost");
    println!("  {:<44} {:>14}", "before and after the purge", grouped(rates[0].median()));
    println!(
        "  {:<44} {:>14} {lost:>8.3} {:.3} .. {:.3} <= {MOST_LOST} {}",
        format!("batch_size => {BATCH}, pause_ms => {PAUSE}"),
        grouped(rates[1].median()),
        1.0 - ratios.quantile(1.0),
        1.0 - ratios.quantile(0.0),
        if kept { "pass" } else { "MISS" }
    );
    println!("  {:<44} {:>14.1}", "seconds that the purge took", purges.median());
    Ok(kept)
}

/// What clients do per second without a purge and beside it, and how many seconds it took.
fn rates_beside(stand: &Stand, done: &AtomicU64) -> Result<(f64, f64, f64)> {
    let rate = |work: &mut dyn FnMut() -> Result<()>| -> Result<(f64, f64)> {
        let (before, begun) = (done.load(Ordering::Relaxed), Instant::now());
        work()?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(((done.load(Ordering::Relaxed) - before) as f64 / seconds, seconds))
    };
    let alone = || -> Result<()> {
        thread::sleep(ALONE);
        Ok(())
    };
    let mut client = stand.superuser_of(COPY)?;
    // Until the clients have met all tables.
    alone()?;
    let (before, _) = rate(&mut { alone })?;
    let call = PURGE.replace("=> false)", &format!("=> false, batch_size => {BATCH}, pause_ms => {PAUSE})"));
    let (during, seconds) = rate(&mut || Ok(client.batch_execute(&call)?))?;
    let (after, _) = rate(&mut { alone })?;
    client.close()?;
    Ok(((before + after) / 2.0, during, seconds))
}

/// Updates, a query and an insert by turns, each in a transaction of another tenant.
fn work(mut client: Client, number: u64, rows: u64, is_over: &AtomicBool, done: &AtomicU64) -> Result<()> {
    let statements = [
        "UPDATE shop.orders SET amount = amount + 1 WHERE id = $1",
        "SELECT count(*) FROM shop.order_lines WHERE order_id = $1",
        "INSERT INTO shop.events (id, at, what) VALUES ($1, now(), 'login')",
        "UPDATE shop.payments SET amount = amount - 1 WHERE id = $1",
    ]
    .into_iter()
    .map(|sql| client.prepare(sql))
    .collect::<Result<Vec<_>, _>>()?;
    let [begin, set_tenant, commit] =
        [client.prepare("BEGIN")?, client.prepare("SELECT tenancy.set_tenant($1)")?, client.prepare("COMMIT")?];
    let mut turn = 0;
    while !is_over.load(Ordering::Relaxed) {
        // What ends in zero is the purged tenant's.
        let id = (turn * CLIENTS + number) * 7919 % (rows / 10) * 10 + 1 + turn % 9;
        let tenant = format!("tenant-{}", 2 + id % 1000 % 99);
        let kind = turn as usize % statements.len();
        let key = if kind == 2 { -((turn * CLIENTS + number) as i64) - 1 } else { id as i64 };
        client.execute(&begin, &[])?;
        client.query(&set_tenant, &[&tenant])?;
        let rows = client.execute(&statements[kind], &[&key])?;
        ensure!(rows == 1, "{rows} rows instead of one");
        client.execute(&commit, &[])?;
        done.fetch_add(1, Ordering::Relaxed);
        turn += 1;
    }
    Ok(client.close()?)
}

pub fn contests() -> Vec<Contest> {
    let contest = |name, what: &str, sides: [(&'static str, &'static str); 2]| Contest {
        name,
        what: format!("BEGIN; set_tenant; {what}; prepared"),
        limit: None,
        apart: None,
        count: 300,
        warmup: 10,
        entries: sides
            .into_iter()
            .enumerate()
            .map(|(place, (label, sql))| Entry {
                label: label.to_owned(),
                is_ours: place == 1,
                start: Box::new(move |stand: &Stand| start(stand, sql)),
            })
            .collect(),
    };
    vec![
        contest(
            "stamps-insert",
            "INSERT of one row; ROLLBACK",
            [
                ("without stamps", "INSERT INTO rows.plain (id, slug, amount) VALUES (100000::bigint + $1, 'new', 1)"),
                ("enable_stamps", "INSERT INTO rows.stamped (id, slug, amount) VALUES (100000::bigint + $1, 'new', 1)"),
            ],
        ),
        contest(
            "stamps-update",
            "UPDATE of one row; ROLLBACK",
            [
                ("without stamps", "UPDATE rows.plain SET amount = amount + 1 WHERE id = $1"),
                ("enable_stamps", "UPDATE rows.stamped SET amount = amount + 1 WHERE id = $1"),
            ],
        ),
        contest(
            "soft-delete",
            "DELETE of one row, or the same UPDATE by hand; ROLLBACK",
            [
                (
                    "UPDATE ... SET deleted_at, deleted_by by hand",
                    "UPDATE rows.by_hand SET deleted_at = now(), deleted_by = current_setting('app.current_user_id')
                      WHERE id = $1 AND deleted_at IS NULL",
                ),
                ("enable_soft_delete", "DELETE FROM rows.soft WHERE id = $1"),
            ],
        ),
        contest(
            "soft-delete-merge",
            "MERGE that deletes one row, or updates it so by hand; ROLLBACK",
            [
                (
                    "MERGE ... UPDATE SET deleted_at, deleted_by by hand",
                    "MERGE INTO rows.by_hand AS r USING (SELECT $1::bigint AS id) AS s ON r.id = s.id AND r.deleted_at IS NULL
                      WHEN MATCHED THEN UPDATE SET deleted_at = now(), deleted_by = current_setting('app.current_user_id')",
                ),
                (
                    "enable_soft_delete",
                    "MERGE INTO rows.soft AS r USING (SELECT $1::bigint AS id) AS s ON r.id = s.id WHEN MATCHED THEN DELETE",
                ),
            ],
        ),
    ]
}

/// All rows are the first tenant's.
const ROWS: u64 = 50_000;

fn start(stand: &Stand, sql: &str) -> Result<Runner> {
    let mut client = stand.app(None)?;
    client.batch_execute("SET app.current_user_id = 'alice'")?;
    let [begin, set_tenant, work, rollback] = [
        client.prepare("BEGIN")?,
        client.prepare("SELECT tenancy.set_tenant($1)")?,
        client.prepare(sql)?,
        client.prepare("ROLLBACK")?,
    ];
    let tenant = stand.tenants[0].to_string();
    Runner::new(client, move |client, turn| {
        let id = (turn * 7919 % ROWS) as i64;
        client.execute(&begin, &[])?;
        client.query(&set_tenant, &[&tenant])?;
        let done = client.execute(&work, &[&id])?;
        ensure!(done == 1, "{done} rows were written");
        client.execute(&rollback, &[])?;
        Ok(())
    })
}
