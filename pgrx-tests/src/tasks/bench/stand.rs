//! The place of a benchmark: a release build in a server tree of its own, a cluster with the data of every side.

use std::{
    cell::OnceCell,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use postgres::{Client, NoTls};
use uuid::Uuid;

use super::{
    Scale,
    ground::Ground,
    valgrind::{self, Counting},
};
use crate::{
    cluster::{Cluster, SUPERUSER},
    progress::step,
    server::{Choice, Server},
    tasks::setup,
    toolchain::Profile,
    workspace,
};

/// The login role of all sides; a superuser would pass by every policy.
pub const APP: &str = "bench_app";
/// The database with all sides.
const DATABASE: &str = "bench";
/// A database without the extension: a session there never loads the library.
pub const STOCK: &str = "postgres";
/// Tenants in the registry.
pub const TENANTS: usize = 10_000;

/// A server as in production, but for what would measure the disk, or something that happens now and then.
pub const SETTINGS: &[(&str, &str)] = &[
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
    ground: OnceCell<Ground>,
    cluster: Cluster,
    pub scale: Scale,
    /// Rows of the tables from which a tenant is purged; a tenth of them is the tenant's.
    pub purged: u64,
    pub tenants: Vec<Uuid>,
}

impl Stand {
    /// Builds, installs, starts and fills.
    pub fn build(choice: &Choice, scale: Scale, purged: u64) -> Result<Self> {
        let ready = setup::ready(choice)?;
        let server = own_tree(&ready.server)?;
        ready.toolchain.install(&server, Profile::Release)?;
        let cluster = step("starting the benchmark's server", || {
            let buffers = ("shared_buffers", scale.shared_buffers());
            Cluster::launch(&server, &[SETTINGS, &[buffers]].concat())
        })?;
        let mut stand = Self { cluster, counting: None, ground: OnceCell::new(), scale, purged, tenants: Vec::new() };
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
        self.script("audit.sql", "")?;
        self.script("rows.sql", "")?;
        // Hint bits and the visibility map are set now, not in somebody's round.
        self.psql(DATABASE, "VACUUM (FREEZE, ANALYZE); CHECKPOINT;", "")?;
        let rows = self.superuser()?.query("SELECT id FROM tenancy.tenants ORDER BY number", &[])?;
        self.tenants = rows.iter().map(|row| row.get(0)).collect();
        Ok(())
    }

    pub fn script(&self, file: &str, side: &str) -> Result<()> {
        self.psql(DATABASE, &script_text(file)?, side).with_context(|| file.to_owned())
    }

    fn psql(&self, database: &str, text: &str, side: &str) -> Result<()> {
        let values = [
            format!("--set=tenants={TENANTS}"),
            format!("--set=active={}", self.scale.active()),
            format!("--set=rows={}", self.scale.rows()),
            format!("--set=others={}", self.scale.others()),
            format!("--set=purged={}", self.purged),
            format!("--set=side={side}"),
        ];
        psql(&self.cluster, database, text, &values)
    }

    /// The servers with and without preload; made when first asked for.
    pub fn ground(&self) -> Result<&Ground> {
        let ground = match self.ground.get() {
            Some(ground) => ground,
            None => {
                let made = Ground::build(self.cluster.server())?;
                self.ground.get_or_init(|| made)
            }
        };
        if let Some(counting) = &self.counting {
            ground.count_instructions(&counting.folder)?;
        }
        Ok(ground)
    }

    pub fn superuser(&self) -> Result<Client> {
        self.connect(SUPERUSER, DATABASE)
    }

    pub fn superuser_of(&self, database: &str) -> Result<Client> {
        self.connect(SUPERUSER, database)
    }

    /// A database of its own for what would be in the way of the sides, from a file of `pgrx-tests/bench`; once.
    pub fn make_database(&self, name: &str, file: &str) -> Result<()> {
        let found = self.superuser()?.query("SELECT FROM pg_database WHERE datname = $1", &[&name])?;
        if !found.is_empty() {
            return Ok(());
        }
        step(format_args!("filling database {name}"), || {
            self.psql("postgres", &format!("CREATE DATABASE {name};"), "")?;
            self.psql(name, &script_text(file)?, "").with_context(|| file.to_owned())
        })
    }

    /// A copy of a database, and nothing left to write of it. Who is connected to either must have gone.
    pub fn copy_database(&self, original: &str, copy: &str) -> Result<()> {
        let mut client = self.superuser()?;
        // By its files, as it was always done before there was another way.
        let how = if self.cluster.major() >= 15 { "STRATEGY file_copy" } else { "" };
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {copy}"))?;
        client.batch_execute(&format!("CREATE DATABASE {copy} TEMPLATE {original} {how}"))?;
        Ok(client.batch_execute("CHECKPOINT")?)
    }

    pub fn drop_database(&self, name: &str) -> Result<()> {
        Ok(self.superuser()?.batch_execute(&format!("DROP DATABASE {name}"))?)
    }

    /// An application's connection to the database with the sides, or to another.
    pub fn app(&self, database: Option<&str>) -> Result<Client> {
        self.connect(APP, database.unwrap_or(DATABASE))
    }

    fn connect(&self, role: &str, database: &str) -> Result<Client> {
        connect(&self.cluster, role, database)
    }

    /// Goes on with a server that runs under valgrind's callgrind.
    pub fn count_instructions(&mut self) -> Result<()> {
        if self.counting.is_some() {
            return Ok(());
        }
        let folder = workspace::state()?.join("callgrind");
        workspace::remove(&folder)?;
        workspace::folder_of_server_user(&folder)?;
        let guarded = valgrind::take_over(&self.cluster, &folder, &[DATABASE, STOCK])?;
        self.counting = Some(Counting { guarded, folder });
        Ok(())
    }

    /// The instructions of an ended server process.
    pub fn instructions(&self, pid: i32) -> Result<u64> {
        self.counting.as_ref().context("the server does not run under valgrind")?.instructions(pid)
    }
}

pub fn connect(cluster: &Cluster, role: &str, database: &str) -> Result<Client> {
    let connected = cluster.config(role, database).connect(NoTls);
    connected.with_context(|| format!("cannot connect to {database} as {role}"))
}

/// A file of `pgrx-tests/bench`.
pub fn script_text(file: &str) -> Result<String> {
    let path = workspace::root().join("pgrx-tests/bench").join(file);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Runs `text` as superuser; `:app` is the login role's name.
pub fn psql(cluster: &Cluster, database: &str, text: &str, values: &[String]) -> Result<()> {
    let mut psql = cluster.program("psql");
    // Tables are made first and protected afterwards, which the DDL guard has a warning for.
    psql.env("PGOPTIONS", "-c client_min_messages=error");
    psql.env("PGDATABASE", database).args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]);
    psql.arg(format!("--set=app={APP}")).args(values);
    let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("cannot run psql")?;
    std::io::Write::write_all(&mut child.stdin.take().context("stdin was asked for")?, text.as_bytes())?;
    if !child.wait()?.success() {
        bail!("psql failed");
    }
    Ok(())
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
