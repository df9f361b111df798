//! Side-by-side benchmarks: variants of one statement in interleaved rounds, as ratios to the first.
//! A ratio within one run holds on another machine; a millisecond does not.
//!
//! `pgrx-tests/bench/<name>/setup.sql` makes the data; each other `.sql` there is a pgbench script, the first in order
//! is the floor. Comments in it choose how it runs: `-- role: app` (a login role; a superuser passes by every policy)
//! and `-- pgbench: --protocol=simple`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{narrate, setup};
use crate::{
    cluster::Cluster,
    db::Db,
    process,
    progress::{say, step},
    server::Choice,
    toolchain::Profile,
    workspace,
};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only benchmarks with this in their name
    pub filter: Option<String>,
    /// Rounds of each variant
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Seconds of one round of one variant
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
}

/// A server as in production, but for what would measure the disk instead of us.
const SETTINGS: &[(&str, &str)] = &[
    ("shared_buffers", "1GB"),
    ("max_wal_size", "4GB"),
    ("synchronous_commit", "off"),
    ("jit", "off"),
    // Autovacuum would fall into some variant's rounds; setup.sql ends with VACUUM ANALYZE instead.
    ("autovacuum", "off"),
];

/// `cargo xtask bench`
pub fn run(choice: &Choice, options: &Options) -> Result<()> {
    let _lock = workspace::lock_servers()?;
    let folders = folders(options.filter.as_deref().unwrap_or(""))?;
    let ready = setup::ready(choice)?;
    ready.toolchain.install(&ready.server, Profile::Release)?;
    let cluster = step("starting the benchmark's server", || {
        let cluster = Cluster::launch(&ready.server, SETTINGS)?;
        cluster.try_prepare_template()?;
        Ok(cluster)
    })?;
    for folder in folders {
        compare(&cluster.db(), &folder, options)?;
    }
    Ok(())
}

fn folders(filter: &str) -> Result<Vec<PathBuf>> {
    let all = workspace::root().join("pgrx-tests/bench");
    let mut folders = Vec::new();
    for entry in fs::read_dir(&all).with_context(|| format!("there are no benchmarks in {}", all.display()))? {
        let entry = entry?;
        if entry.path().join("setup.sql").is_file() && entry.file_name().to_string_lossy().contains(filter) {
            folders.push(entry.path());
        }
    }
    if folders.is_empty() {
        bail!("no benchmark in {} matches \"{filter}\"", all.display());
    }
    folders.sort();
    Ok(folders)
}

/// A pgbench script and what it took, in milliseconds, one figure a round.
struct Variant {
    name: String,
    script: PathBuf,
    role: Option<String>,
    arguments: Vec<String>,
    latencies: Vec<f64>,
}

impl Variant {
    fn read(script: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(&script).with_context(|| format!("cannot read {}", script.display()))?;
        let said = |key: &str| text.lines().find_map(|line| line.strip_prefix("-- ")?.strip_prefix(key)).map(str::trim);
        Ok(Self {
            name: script.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            role: said("role:").map(str::to_owned),
            arguments: said("pgbench:")
                .unwrap_or("--protocol=prepared")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            latencies: Vec::new(),
            script,
        })
    }

    fn measure(&mut self, db: &Db, seconds: u32) -> Result<()> {
        let mut pgbench = db.program("pgbench");
        if let Some(role) = &self.role {
            pgbench.env("PGUSER", role);
        }
        // A copy: the server's system user, who runs pgbench, may not be able to read the checkout.
        let copy = db.cluster().data().join("bench.sql");
        fs::copy(&self.script, &copy)?;
        pgbench.args(["--no-vacuum", &format!("--time={seconds}"), "--file"]).arg(&copy).args(&self.arguments);
        let report = process::output(&mut pgbench)?;
        self.latencies.push(latency(&report).with_context(|| format!("pgbench says no latency:\n{report}"))?);
        Ok(())
    }
}

fn compare(db: &Db, folder: &Path, options: &Options) -> Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_variant = |script: &PathBuf| script.file_name().is_some_and(|file| file != "setup.sql");
    let mut variants: Vec<Variant> =
        narrate::scripts(folder)?.into_iter().filter(is_variant).map(Variant::read).collect::<Result<_>>()?;
    if variants.len() < 2 {
        bail!("{} has nothing to compare: it wants a floor and a variant beside setup.sql", folder.display());
    }
    step(format_args!("{name}: setup"), || {
        let setup = fs::File::open(folder.join("setup.sql"))?;
        let mut psql = db.program("psql");
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]).stdin(setup).stdout(std::process::Stdio::null());
        process::run(&mut psql)
    })?;
    for round in 1..=options.rounds {
        say(format_args!("{name}: round {round} of {}", options.rounds));
        for variant in &mut variants {
            variant.measure(db, options.seconds)?;
        }
    }
    println!("\n{name:<28} {:>10} {:>8} {:>17}", "median ms", "ratio", "quartiles");
    let floors = variants[0].latencies.clone();
    for Variant { name, latencies, .. } in &variants {
        // Round by round against the floor beside it: what slows the machine for a while slows both.
        let ratios: Vec<f64> = latencies.iter().zip(&floors).map(|(own, floor)| own / floor).collect();
        println!(
            "{name:<28} {:>10.4} {:>8.2} {:>8.2} .. {:.2}",
            quantile(latencies, 0.5),
            quantile(&ratios, 0.5),
            quantile(&ratios, 0.25),
            quantile(&ratios, 0.75)
        );
    }
    Ok(())
}

/// `latency average = 0.123 ms`
fn latency(report: &str) -> Option<f64> {
    let line = report.lines().find_map(|line| line.strip_prefix("latency average = "))?;
    line.strip_suffix(" ms")?.parse().ok()
}

/// By linear interpolation; `values` is not empty.
fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::{latency, quantile};

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.25), 1.25);
        assert_eq!(quantile(&[5.0], 0.75), 5.0);
    }

    #[test]
    fn the_latency_is_read_from_pgbench() {
        assert_eq!(latency("tps = 1\nlatency average = 0.052 ms\n"), Some(0.052));
        assert_eq!(latency("pgbench: error"), None);
    }
}
