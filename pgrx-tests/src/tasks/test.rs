//! `cargo xtask test`: all kinds of tests, cheapest first, one table at the end.

use std::{
    fmt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    check,
    core_suite::{self, Played},
    counted::{self, Counted},
    golden::{self, Suite},
    setup::{self, Ready},
};
use crate::{
    cluster::{
        Cluster,
        data::{self, Folder},
    },
    process::server_user,
    progress::{self, paint, say, step},
    server::Choice,
    toolchain::{Profile, cargo},
    workspace,
};

/// See pgrx-tests/README.md for what belongs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Form and clippy
    Lint,
    /// #[test] in the extension's crate: decisions, no server
    Plain,
    /// #[pg_test]: the seam between Rust and PostgreSQL
    Pg,
    /// Golden psql sessions
    Regress,
    /// Sessions that race
    Isolation,
    /// Real clients on real servers
    Client,
    /// PostgreSQL's own suite, with us loaded and without; only when asked for
    Core,
}

#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Only tests with this in their name; the name of a room runs all that the room has
    pub filter: Option<String>,
    /// Only these kinds
    #[arg(long = "kind", value_enum, value_delimiter = ',', value_name = "KIND,...")]
    pub kinds: Vec<Kind>,
    /// Make what the golden sessions say now the expectation
    #[arg(long)]
    pub accept: bool,
    /// For --kind core: PostgreSQL's source tree, where it cannot be fetched from Debian
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
}

impl Options {
    /// Without --kind: everything but PostgreSQL's own suite, which is fetched and takes minutes; with a filter not the
    /// lints either, which know no names.
    fn wants(&self, kind: Kind) -> bool {
        match kind {
            _ if !self.kinds.is_empty() => self.kinds.contains(&kind),
            Kind::Core => false,
            Kind::Lint => self.filter.is_none(),
            _ => true,
        }
    }

    fn filter(&self) -> &str {
        self.filter.as_deref().unwrap_or("")
    }
}

/// A line of the closing table.
struct Line {
    what: &'static str,
    result: Outcome,
    time: Duration,
}

enum Outcome {
    /// The lints: passed, and nothing to count.
    Clean,
    Tests(Counted),
    Absent,
    /// What it needs cannot be had here.
    Skipped,
    Failed(anyhow::Error),
}

impl Outcome {
    fn failed(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Tests(Counted { passed: false, .. }))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.pad("ok"),
            Self::Tests(Counted { passed: true, tests: 0 }) => f.pad("no match"),
            Self::Tests(Counted { passed: true, .. }) => f.pad("ok"),
            Self::Absent => f.pad("none yet"),
            Self::Skipped => f.pad("SKIPPED"),
            Self::Failed(_) | Self::Tests(Counted { passed: false, .. }) => f.pad("FAILED"),
        }
    }
}

pub fn run(choice: &Choice, options: &Options) -> Result<()> {
    let _lock = workspace::lock_servers()?;
    let ready = setup::ready(choice)?;
    let mut lines = Vec::new();

    if options.wants(Kind::Lint) {
        let line = timed("lint", || check::all(&ready).map(|()| Outcome::Clean));
        let failed = line.result.failed();
        lines.push(line);
        if failed {
            // What does not compile cannot be tested, and what is not clean is not worth the minutes.
            return conclude(&lines, options);
        }
    }
    match (options.wants(Kind::Plain), options.wants(Kind::Pg)) {
        // cargo pgrx test runs the plain ones, too.
        (true, true) => lines.push(timed("plain, pg", || pg_tests(&ready, options.filter()))),
        (false, true) => lines.push(timed("pg", || pg_tests(&ready, options.filter()))),
        (true, false) => lines.push(timed("plain", || plain_tests(&ready, options.filter()))),
        (false, false) => {}
    }
    on_a_server(&ready, options, &mut lines)?;
    if options.wants(Kind::Core) {
        lines.push(timed("core", || core_tests(&ready, options)));
    }
    conclude(&lines, options)
}

fn timed(what: &'static str, work: impl FnOnce() -> Result<Outcome>) -> Line {
    let begun = Instant::now();
    let result = work().unwrap_or_else(Outcome::Failed);
    if let Outcome::Failed(error) = &result {
        eprintln!("{} {what}: {error:#}", paint("31", "error:"));
    }
    Line { what, result, time: begun.elapsed() }
}

fn plain_tests(ready: &Ready, filter: &str) -> Result<Outcome> {
    let mut command = ready.toolchain.cargo();
    command.args(["test", "--package", "pg_tenancy", "--lib", "--no-default-features", "--features"]);
    command.arg(format!("{} pg_test", ready.server.feature()));
    // A #[pg_test] is a Rust test named pg_<name>, which wants a server.
    command.arg("--").args(["--skip", "pg_"]);
    if !filter.is_empty() {
        command.arg(filter);
    }
    say("plain tests");
    counted::run(&mut command).map(Outcome::Tests)
}

fn pg_tests(ready: &Ready, filter: &str) -> Result<Outcome> {
    // pgrx puts its data below --pgdata and its socket into it, and leaves nothing for the next run to trip over.
    let folder = Folder::new()?;
    let mut command = ready.toolchain.pgrx();
    command.arg("test").arg(ready.server.feature()).args(["--package", "pg_tenancy", "--no-default-features"]);
    command.arg("--pgdata").arg(folder.sockets());
    if let Some(user) = server_user()? {
        command.args(["--runas", &user.name]);
    }
    if !filter.is_empty() {
        command.arg(filter);
    }
    say("cargo pgrx test");
    counted::run(&mut command).map(Outcome::Tests)
}

/// The kinds that share one cluster with the extension installed.
fn on_a_server(ready: &Ready, options: &Options, lines: &mut Vec<Line>) -> Result<()> {
    let mut golden = Vec::new();
    for (kind, suite) in [(Kind::Regress, golden::REGRESS), (Kind::Isolation, golden::ISOLATION)] {
        if options.wants(kind) {
            golden.push((suite, files(suite, options.filter())));
        }
    }
    let clients = options.wants(Kind::Client);
    let has_work = golden.iter().any(|(_, files)| matches!(files, Ok(Some(files)) if !files.is_empty()));
    let cluster = if clients || has_work { Some(start(ready)?) } else { None };
    for (suite, files) in golden {
        lines.push(timed(suite.name, || {
            Ok(match (files?, &cluster) {
                (None, _) => Outcome::Absent,
                (Some(files), Some(cluster)) => Outcome::Tests(suite.run(cluster, &files, options.accept)?),
                (Some(_), None) => Outcome::Tests(Counted { passed: true, tests: 0 }),
            })
        }));
    }
    if let Some(cluster) = cluster.filter(|_| clients) {
        lines.push(timed("client", || client_tests(&cluster, options.filter())));
    }
    Ok(())
}

/// The suite's matching files, or `None` while there is no such suite.
fn files(suite: Suite, filter: &str) -> Result<Option<Vec<String>>> {
    if suite.exists() { suite.files(filter).map(Some) } else { Ok(None) }
}

fn start(ready: &Ready) -> Result<Cluster> {
    // After cargo pgrx test, which leaves a build with the test functions in it installed.
    ready.toolchain.install(&ready.server, Profile::Dev)?;
    step("starting the test server", || {
        let cluster = Cluster::launch(&ready.server, &[])?;
        cluster.try_prepare_template().context("CREATE EXTENSION pg_tenancy failed")?;
        Ok(cluster)
    })
}

fn client_tests(cluster: &Cluster, filter: &str) -> Result<Outcome> {
    let mut command: Command = cargo();
    command.args(["test", "--quiet", "--package", "pg_tenancy_tests", "--no-fail-fast"]);
    command.envs(cluster.test_environment()?);
    let room = workspace::root().join("pgrx-tests/tests").join(format!("{filter}.rs"));
    if !filter.is_empty() {
        // The name of a room means its whole file, whatever its tests are called.
        if room.is_file() {
            command.args(["--test", filter])
        } else {
            command.arg(filter)
        };
    }
    say("client tests");
    let counted = counted::run(&mut command)?;
    data::sweep()?;
    Ok(Outcome::Tests(counted))
}

fn core_tests(ready: &Ready, options: &Options) -> Result<Outcome> {
    ready.toolchain.install(&ready.server, Profile::Dev)?;
    match core_suite::run(ready, options.source.as_deref(), options.filter(), options.accept)? {
        Played::Compared(counted) => Ok(Outcome::Tests(counted)),
        Played::Skipped(why) => {
            eprintln!("{} core: {why:#}", paint("33", "SKIPPED:"));
            Ok(Outcome::Skipped)
        }
    }
}

fn conclude(lines: &[Line], options: &Options) -> Result<()> {
    println!("\n{:<12} {:<10} {:>6} {:>14}", "kind", "result", "tests", "time");
    for Line { what, result, time } in lines {
        let tests = match result {
            Outcome::Tests(counted) => counted.tests.to_string(),
            _ => String::new(),
        };
        println!("{what:<12} {result:<10} {tests:>6} {:>14}", progress::time(*time));
    }
    let failed: Vec<&str> = lines.iter().filter(|line| line.result.failed()).map(|line| line.what).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join("; "));
    }
    let nothing = lines.iter().all(|line| {
        matches!(line.result, Outcome::Absent | Outcome::Skipped | Outcome::Tests(Counted { tests: 0, .. }))
    });
    if nothing {
        match &options.filter {
            Some(filter) => bail!("no test matches \"{filter}\""),
            None => bail!("there is no test of the kinds asked for"),
        }
    }
    Ok(())
}
