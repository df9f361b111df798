//! The place of a benchmark: a release build in a server tree of its own, a cluster with the data of every side.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use postgres::{Client, NoTls};
use uuid::Uuid;

use super::{Scale, valgrind::Counting};
use crate::{
    cluster::{Cluster, SUPERUSER, Shutdown},
    process::{self, Guarded},
    progress::step,
    server::{Choice, Server},
    tasks::setup,
    toolchain::Profile,
    workspace,
};

/// The login role of all sides; a superuser would pass by every policy.
const APP: &str = "bench_app";
/// The database with all sides.
const DATABASE: &str = "bench";
/// A database without the extension: a session there never loads the library.
pub const STOCK: &str = "postgres";
/// Tenants in the registry.
pub const TENANTS: usize = 10_000;

/// A server as in production, but for what would measure the disk, or something that happens now and then.
const SETTINGS: &[(&str, &str)] = &[
    ("max_wal_size", "8GB"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("synchronous_commit", "off"),
    ("jit", "off"),
    ("autovacuum", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("plan_cache_mode", "force_generic_plan"),
    ("max_locks_per_transaction", "1024"),
];

pub struct Stand {
    /// Runs instead of the cluster's own server while instructions are counted; ends before the cluster's files go.
    counting: Option<Counting>,
    cluster: Cluster,
    pub scale: Scale,
    pub tenants: Vec<Uuid>,
}

impl Stand {
    /// Builds, installs, starts and fills.
    pub fn build(choice: &Choice, scale: Scale) -> Result<Self> {
        let ready = setup::ready(choice)?;
        let server = own_tree(&ready.server)?;
        ready.toolchain.install(&server, Profile::Release)?;
        let cluster = step("starting the benchmark's server", || {
            let buffers = ("shared_buffers", scale.shared_buffers());
            Cluster::launch(&server, &[SETTINGS, &[buffers]].concat())
        })?;
        let mut stand = Self { cluster, counting: None, scale, tenants: Vec::new() };
        step(format_args!("filling it: {} orders a side", scale.rows()), || stand.fill())?;
        Ok(stand)
    }

    fn fill(&mut self) -> Result<()> {
        self.psql("postgres", "CREATE DATABASE bench;", "")?;
        self.psql(DATABASE, "CREATE EXTENSION pg_tenancy;", "")?;
        self.script("registry.sql", "")?;
        for side in super::sides::SCHEMAS {
            self.script("tables.sql", side)?;
        }
        self.script("isolate_ours.sql", "")?;
        self.script("isolate_today.sql", "")?;
        // Hint bits and the visibility map are set now, not in somebody's round.
        self.psql(DATABASE, "VACUUM (FREEZE, ANALYZE); CHECKPOINT;", "")?;
        let rows = self.superuser()?.query("SELECT id FROM tenancy.tenants ORDER BY number", &[])?;
        self.tenants = rows.iter().map(|row| row.get(0)).collect();
        Ok(())
    }

    pub fn script(&self, file: &str, side: &str) -> Result<()> {
        let path = workspace::root().join("pgrx-tests/bench").join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        self.psql(DATABASE, &text, side).with_context(|| path.display().to_string())
    }

    fn psql(&self, database: &str, text: &str, side: &str) -> Result<()> {
        let mut psql = self.cluster.program("psql");
        psql.env("PGDATABASE", database).args([
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            &format!("--set=app={APP}"),
            &format!("--set=tenants={TENANTS}"),
            &format!("--set=active={}", self.scale.active()),
            &format!("--set=rows={}", self.scale.rows()),
            &format!("--set=others={}", self.scale.others()),
            &format!("--set=side={side}"),
        ]);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("cannot run psql")?;
        std::io::Write::write_all(&mut child.stdin.take().context("stdin was asked for")?, text.as_bytes())?;
        if !child.wait()?.success() {
            bail!("psql failed");
        }
        Ok(())
    }

    pub fn superuser(&self) -> Result<Client> {
        self.connect(SUPERUSER, DATABASE)
    }

    /// An application's connection to the database with the sides, or to another.
    pub fn app(&self, database: Option<&str>) -> Result<Client> {
        self.connect(APP, database.unwrap_or(DATABASE))
    }

    fn connect(&self, role: &str, database: &str) -> Result<Client> {
        self.cluster
            .config(role, database)
            .connect(NoTls)
            .with_context(|| format!("cannot connect to {database} as {role}"))
    }

    /// Goes on with a server that runs under valgrind's callgrind.
    pub fn count_instructions(&mut self) -> Result<()> {
        if self.counting.is_some() {
            return Ok(());
        }
        self.cluster.stop(Shutdown::Fast);
        let folder = workspace::state()?.join("callgrind");
        workspace::remove(&folder)?;
        workspace::folder_of_server_user(&folder)?;
        let command = super::valgrind::server(&self.cluster, &folder)?;
        let log = folder.join("log");
        // Not QUIT: a shell's background child ignores it until the server is up, which takes its time here.
        let guarded = Guarded::start(&command, "TERM", &log)?;
        let counting = Counting { guarded, folder };
        self.counting = Some(counting);
        step("starting the server under valgrind", || {
            process::wait_for(
                "the server under valgrind to accept connections",
                std::time::Duration::from_secs(300),
                || {
                    let counting = self.counting.as_mut().context("set above")?;
                    if let Some(status) = counting.guarded.ended()? {
                        bail!("it ended ({status}); see {}", log.display());
                    }
                    Ok(self.connect(SUPERUSER, STOCK).ok())
                },
            )
        })?;
        // The first session of a database writes the cache files that all others read.
        for database in [DATABASE, STOCK] {
            self.connect(APP, database)?.close()?;
        }
        Ok(())
    }

    /// The instructions of an ended server process.
    pub fn instructions(&self, pid: i32) -> Result<u64> {
        self.counting.as_ref().context("the server does not run under valgrind")?.instructions(pid)
    }
}

/// A copy of the server's tree with the release build: tests go on using the one they have.
/// A server that is not below `target/` is not ours to copy, and is used where it is.
fn own_tree(server: &Server) -> Result<Server> {
    let servers = workspace::state()?.join("servers").canonicalize()?;
    let Ok(below) = server.pg_config.strip_prefix(&servers) else {
        return Ok(server.clone());
    };
    let name = below.iter().next().context("a file lies in a tree")?;
    let original = servers.join(name);
    let own = servers.join(format!("{}-bench", name.to_string_lossy()));
    let in_own: PathBuf = own.join(below.strip_prefix(name)?);
    if !in_own.is_file() || !same_stamps(&original, &own) {
        step(format_args!("copying the server to {}", own.display()), || {
            workspace::remove(&own)?;
            workspace::copy_tree(&original, &own)
        })?;
    }
    let mut copy = Server::at(&in_own)?;
    copy.packaged_as = server.packaged_as.clone();
    Ok(copy)
}

/// Whether both trees were made from the same packages.
fn same_stamps(one: &Path, other: &Path) -> bool {
    let stamp = |tree: &Path| ["version", "complete"].map(|name| fs::read_to_string(tree.join(name)).ok());
    stamp(one) == stamp(other)
}
