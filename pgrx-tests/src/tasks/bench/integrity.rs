//! How long `tenancy.check_integrity` looks, at catalogs and at rows.

use anyhow::Result;
use postgres::Client;

use super::{
    facts::Fact,
    on_cpu,
    stand::Stand,
    table::{Sample, grouped},
};

/// Its database; made when first asked for.
const CHECKED: &str = "checked";

pub fn facts() -> Vec<Fact> {
    vec![
        Fact {
            name: "integrity-catalog",
            what: "catalog and role checks of 1,000 protected tables with 20 columns each, in ms on CPU",
            tell: catalog,
        },
        Fact {
            name: "integrity-data",
            what: "checks of rows, beside SELECT count(*) of the same 1,000 tables (10,000 rows in a third of them), in ms on CPU",
            tell: rows,
        },
    ]
}

const CATALOG_LIMIT: f64 = 3000.0;
const DATA_LIMIT: f64 = 1.2;

/// A session of a superuser, who reads all rows.
struct Side {
    label: &'static str,
    statement: String,
    client: Client,
    pid: i32,
    sample: Sample,
}

impl Side {
    fn new(stand: &Stand, label: &'static str, statement: String) -> Result<Self> {
        let mut client = stand.superuser_of(CHECKED)?;
        let pid = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        Ok(Self { label, statement, client, pid, sample: Sample::default() })
    }

    /// Runs it once, in ms.
    fn run(&mut self) -> Result<()> {
        let before = on_cpu(self.pid)?;
        self.client.batch_execute(&self.statement)?;
        self.sample.push((on_cpu(self.pid)? - before) as f64 / 1e6);
        Ok(())
    }
}

fn measured(sides: &mut [Side], rounds: u64) -> Result<()> {
    for side in sides.iter_mut() {
        side.client.batch_execute(&side.statement)?;
    }
    for round in 0..rounds as usize {
        for turn in 0..sides.len() {
            let at = (round + turn) % sides.len();
            sides[at].run()?;
        }
    }
    Ok(())
}

fn catalog(stand: &Stand, rounds: u64) -> Result<bool> {
    stand.make_database(CHECKED, "integrity.sql")?;
    let check = |scope| format!("SELECT count(*) FROM tenancy.check_integrity('{scope}')");
    let mut sides = [Side::new(stand, "catalog", check("catalog"))?, Side::new(stand, "roles", check("roles"))?];
    measured(&mut sides, rounds)?;
    let sum: f64 = sides.iter().map(|side| side.sample.median()).sum();
    for side in &sides {
        println!("  {:<44} {:>14}", side.label, grouped(side.sample.median()));
    }
    let kept = sum <= CATALOG_LIMIT;
    println!(
        "  {:<44} {:>14} <= {} {}",
        "both",
        grouped(sum),
        grouped(CATALOG_LIMIT),
        if kept { "pass" } else { "MISS" }
    );
    Ok(kept)
}

fn rows(stand: &Stand, rounds: u64) -> Result<bool> {
    stand.make_database(CHECKED, "integrity.sql")?;
    let names: Vec<String> = stand
        .superuser_of(CHECKED)?
        .query("SELECT relation::text FROM tenancy.protected_tables", &[])?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let counts = names.iter().map(|name| format!("SELECT count(*) FROM {name};")).collect::<String>();
    let mut sides = [
        Side::new(stand, "SELECT count(*)", counts)?,
        Side::new(stand, "check_integrity('data')", "SELECT count(*) FROM tenancy.check_integrity('data')".to_owned())?,
    ];
    measured(&mut sides, rounds)?;
    let ratios = sides[1].sample.over(&sides[0].sample);
    let ratio = sides[1].sample.median() / sides[0].sample.median();
    let kept = ratio <= DATA_LIMIT;
    println!("  {:<44} {:>14}", sides[0].label, grouped(sides[0].sample.median()));
    println!(
        "  {:<44} {:>14} {ratio:>8.3} {:.3} .. {:.3} <= {DATA_LIMIT} {}",
        sides[1].label,
        grouped(sides[1].sample.median()),
        ratios.quantile(0.25),
        ratios.quantile(0.75),
        if kept { "pass" } else { "MISS" }
    );
    Ok(kept)
}
