//! A private PostgreSQL server: its own data, its own socket folder, no TCP, gone when the run is over.

pub mod data;
mod standby;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use postgres::Config;

use crate::{
    blame::must,
    db::Db,
    names::quote_ident,
    process::{self, Guarded},
    server::Server,
    session::{Session, describe},
};

/// Names the socket; nothing listens on TCP.
pub const PORT: u16 = 65432;
/// The bootstrap superuser of every cluster here, whoever runs it.
pub const SUPERUSER: &str = "postgres";
/// The database that a test's database is a copy of.
const TEMPLATE: &str = "pg_tenancy_template";
const EXTENSION: &str = "pg_tenancy";
const START_LIMIT: Duration = Duration::from_secs(120);

/// How the shared cluster is found by the test binaries that `cargo xtask test` starts.
pub mod environment {
    pub const PG_CONFIG: &str = "PG_TENANCY_TEST_PG_CONFIG";
    pub const SOCKETS: &str = "PG_TENANCY_TEST_SOCKETS";
    pub const RUN_FOLDER: &str = "PG_TENANCY_TEST_RUN_FOLDER";
}

/// How a server is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Rolls back and writes a checkpoint.
    Fast,
    /// Like a crash: the next start recovers from WAL.
    Immediate,
}

/// A handle; clones share the server, the last one to go stops it.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: Server,
    sockets: PathBuf,
    /// `None` for the shared cluster seen from a test binary: not ours to stop.
    own: Option<Own>,
    template: Mutex<Template>,
}

/// What a cluster that this process started has.
#[derive(Debug)]
struct Own {
    process: Mutex<Option<Guarded>>,
    folder: data::Folder,
    environment: Environment,
}

/// Variables of a server's environment beside those of ours.
type Environment = Vec<(String, String)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Template {
    Missing,
    Ready,
}

impl Cluster {
    /// The cluster that `cargo xtask test` started for this run.
    #[track_caller]
    pub fn shared() -> Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED
            .get_or_init(|| {
                let sockets = PathBuf::from(from_environment(environment::SOCKETS));
                Self(Arc::new(Inner {
                    server: Self::server_of_this_run(),
                    sockets,
                    own: None,
                    template: Mutex::new(Template::Ready),
                }))
            })
            .clone()
    }

    /// A cluster of the test's own, for what the shared one must not have: `shared_preload_libraries`, a restart, a crash.
    #[track_caller]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        must(Self::launch(&Self::server_of_this_run(), settings))
    }

    /// The same with variables in the server's environment.
    #[track_caller]
    pub fn start_in(settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        must(Self::launch_in(&Self::server_of_this_run(), settings, environment))
    }

    #[track_caller]
    fn server_of_this_run() -> Server {
        let pg_config = from_environment(environment::PG_CONFIG);
        must(Server::at(Path::new(&pg_config)))
    }

    /// A cluster on `server`, empty but for what initdb makes.
    pub fn launch(server: &Server, settings: &[(&str, &str)]) -> Result<Self> {
        Self::launch_in(server, settings, Environment::new())
    }

    fn launch_in(server: &Server, settings: &[(&str, &str)], environment: Environment) -> Result<Self> {
        let folder = data::Folder::new()?;
        data::initdb(server, &folder.data())?;
        data::configure(&folder, data::FOR_TESTS)?;
        data::configure(&folder, settings)?;
        Self::run(server, folder, environment)
    }

    fn run(server: &Server, folder: data::Folder, environment: Environment) -> Result<Self> {
        let cluster = Self(Arc::new(Inner {
            server: server.clone(),
            sockets: folder.sockets().to_owned(),
            own: Some(Own { process: Mutex::new(None), folder, environment }),
            template: Mutex::new(Template::Missing),
        }));
        cluster.power_on()?;
        Ok(cluster)
    }

    fn power_on(&self) -> Result<()> {
        let own = self.own()?;
        let mut command = self.0.server.program("postgres")?;
        command.arg("-D").arg(own.folder.data()).envs(own.environment.iter().cloned());
        let mut server = Guarded::start(&command, "QUIT", &self.log())?;
        process::wait_for("the server to accept connections", START_LIMIT, || {
            if let Some(status) = server.ended()? {
                bail!("the server ended ({status}) instead of starting; its log:\n{}", data::tail(&self.log()));
            }
            Ok(self.open(SUPERUSER, "postgres").ok())
        })?;
        *own.process.lock().expect("nobody panics holding it") = Some(server);
        Ok(())
    }

    fn own(&self) -> Result<&Own> {
        self.0.own.as_ref().context(
            "this is the shared cluster of the whole run; a test that stops or reconfigures a server starts its own: \
             Cluster::start(&[])",
        )
    }

    /// Stops the server and starts it again on the same data.
    #[track_caller]
    pub fn restart(&self, how: Shutdown) {
        self.stop(how);
        must(self.power_on());
    }

    /// Stops the server and leaves its data; `restart` brings it back.
    #[track_caller]
    pub fn stop(&self, how: Shutdown) {
        let signal = match how {
            Shutdown::Fast => "INT",
            Shutdown::Immediate => "QUIT",
        };
        let own = must(self.own());
        if let Some(mut running) = own.process.lock().expect("nobody panics holding it").take() {
            must(running.stop(signal));
        }
    }

    /// Adds settings to postgresql.conf; `reload` or `restart` makes them count.
    #[track_caller]
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let done = self.own().and_then(|own| data::configure(&own.folder, settings));
        must(done);
    }

    /// Makes the server read its configuration again.
    pub fn reload(&self) {
        self.superuser().run("SELECT pg_catalog.pg_reload_conf()");
    }

    pub fn server(&self) -> &Server {
        &self.0.server
    }

    pub fn major(&self) -> u32 {
        self.0.server.major
    }

    /// The folder of the socket, which libpq takes as `host`.
    pub fn sockets(&self) -> &Path {
        &self.0.sockets
    }

    pub fn port(&self) -> u16 {
        PORT
    }

    /// PGDATA of a cluster that this process started.
    #[track_caller]
    pub fn data(&self) -> PathBuf {
        must(self.own()).folder.data()
    }

    /// What the server has written so far.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    #[track_caller]
    fn log(&self) -> PathBuf {
        match &self.0.own {
            Some(own) => own.folder.log(),
            None => Path::new(&from_environment(environment::RUN_FOLDER)).join("log"),
        }
    }

    /// The variables that lead libpq programs (psql, pg_dump) to this cluster.
    pub fn libpq_environment(&self) -> [(&'static str, String); 3] {
        [
            ("PGHOST", self.0.sockets.display().to_string()),
            ("PGPORT", PORT.to_string()),
            ("PGUSER", SUPERUSER.to_owned()),
        ]
    }

    /// One of the server's programs (`psql`, `pg_dump`), aimed at this cluster, run by the server's system user.
    #[track_caller]
    pub fn program(&self, name: &str) -> std::process::Command {
        let mut command = must(self.0.server.program(name));
        command.envs(self.libpq_environment());
        command
    }

    /// The variables by which `Cluster::shared` in a child process finds this cluster.
    pub fn test_environment(&self) -> Result<[(&'static str, PathBuf); 3]> {
        Ok([
            (environment::PG_CONFIG, self.0.server.pg_config.clone()),
            (environment::SOCKETS, self.0.sockets.clone()),
            (environment::RUN_FOLDER, self.own()?.folder.path().to_owned()),
        ])
    }

    /// How a client connects: over the socket, as `role`, to `database`.
    pub fn config(&self, role: &str, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.0.sockets).port(PORT).user(role).dbname(database).application_name("pg_tenancy_tests");
        config
    }

    /// A superuser's session on the maintenance database.
    #[track_caller]
    pub fn superuser(&self) -> Session {
        must(self.open(SUPERUSER, "postgres"))
    }

    /// A database of unique name with the extension in it, dropped with the last handle to it.
    pub fn db(&self) -> Db {
        self.prepare_template();
        Db::create(self.clone(), Some(TEMPLATE))
    }

    /// A database without the extension.
    pub fn bare_db(&self) -> Db {
        Db::create(self.clone(), None)
    }

    #[track_caller]
    fn prepare_template(&self) {
        must(self.try_prepare_template());
    }

    /// `CREATE EXTENSION` once; a copy of that database takes a fraction of the time.
    /// For the shared cluster the task runner has done it, so that no two test binaries try.
    pub fn try_prepare_template(&self) -> Result<()> {
        let mut state = self.0.template.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *state == Template::Missing {
            self.open(SUPERUSER, "postgres")?.run_or_tell(&format!("CREATE DATABASE {}", quote_ident(TEMPLATE)))?;
            self.create_extension(TEMPLATE)?;
            *state = Template::Ready;
        }
        Ok(())
    }

    /// `CREATE EXTENSION` in a database of this cluster.
    pub fn create_extension(&self, database: &str) -> Result<()> {
        self.open(SUPERUSER, database)?.run_or_tell(&format!("CREATE EXTENSION {}", quote_ident(EXTENSION)))
    }

    #[track_caller]
    fn open(&self, role: &str, database: &str) -> Result<Session> {
        Session::open(self.config(role, database)).map_err(|error| {
            anyhow!("cannot connect in {} as {role} to {database}: {}", self.0.sockets.display(), describe(&error))
        })
    }
}

fn from_environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: these tests need the server that the task runner starts; run cargo xtask test [filter]"
        )
    })
}
