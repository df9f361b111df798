//! Debian's PgBouncer in front of a database, in transaction mode.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use postgres::{Config, Error};

use crate::{
    blame::must,
    cluster::{Cluster, PORT, SUPERUSER, data::Folder},
    db::{Db, Role},
    packages,
    process::{self, Guarded, find_program},
    session::{Session, describe},
};

/// A running pooler. The roles that may pass are those that exist when it starts.
#[derive(Debug)]
pub struct Pooler {
    process: Mutex<Guarded>,
    program: PathBuf,
    folder: Folder,
    db: Db,
}

impl Db {
    /// PgBouncer in transaction mode with one server connection per role, so that clients are sure to share it;
    /// `settings` go into `[pgbouncer]` after ours (`("pool_mode", "session")`).
    #[track_caller]
    pub fn pgbouncer(&self, settings: &[(&str, &str)]) -> Pooler {
        must(Pooler::start(self, settings))
    }
}

impl Pooler {
    fn start(db: &Db, settings: &[(&str, &str)]) -> Result<Self> {
        if find_program("pgbouncer").is_none() {
            packages::ensure(&["pgbouncer"], "test connection poolers")?;
        }
        let program = find_program("pgbouncer").context("the package pgbouncer brings no program of that name")?;
        let folder = Folder::new()?;
        let (ini, users) = (folder.path().join("ini"), folder.path().join("users"));
        fs::write(&users, user_list(db.cluster())?)?;
        fs::write(&ini, configuration(db, folder.sockets(), &users, settings))?;
        let process = Mutex::new(launch(&program, &folder)?);
        let pooler = Self { process, program, folder, db: db.clone() };
        let config = pooler.config(SUPERUSER);
        process::wait_for("pgbouncer to accept connections", Duration::from_secs(30), || {
            if let Some(status) = pooler.process().ended()? {
                bail!("pgbouncer ended ({status}): {}", fs::read_to_string(pooler.folder.log()).unwrap_or_default());
            }
            Ok(Session::open(config.clone()).ok())
        })?;
        Ok(pooler)
    }

    fn process(&self) -> MutexGuard<'_, Guarded> {
        self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Starts it again when it has ended by itself, as a service manager does: 1.18 ends on a cancel request at a bad moment.
    #[track_caller]
    pub fn keep_alive(&self) {
        let mut process = self.process();
        if must(process.ended()).is_some() {
            *process = must(launch(&self.program, &self.folder));
        }
    }

    /// A client's session through the pooler.
    #[track_caller]
    pub fn login(&self, role: &Role) -> Session {
        must(self.try_login(role, |_| {}).map_err(|error| format!("{role} cannot log in: {}", describe(&error))))
    }

    pub fn try_login(&self, role: &Role, adjust: impl FnOnce(&mut Config)) -> Result<Session, Error> {
        let mut config = self.config(role.name());
        adjust(&mut config);
        Ok(Session::open(config)?.keeping(self.db.clone()))
    }

    /// The socket itself, for a client that speaks the protocol without a library.
    pub fn socket(&self) -> PathBuf {
        self.folder.sockets().join(format!(".s.PGSQL.{PORT}"))
    }

    /// The name of the database behind it.
    pub fn database(&self) -> &str {
        self.db.name()
    }

    fn config(&self, role: &str) -> Config {
        let mut config = Config::new();
        // PgBouncer refuses startup parameters that it does not track; the client sends none but these.
        config.host_path(self.folder.sockets()).port(PORT).user(role).dbname(self.db.name());
        config
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Err(error) = self.process().stop("TERM") {
            eprintln!("{error:#}");
        }
    }
}

fn launch(program: &Path, folder: &Folder) -> Result<Guarded> {
    let mut command = process::as_server_user(program)?;
    command.arg(folder.path().join("ini"));
    Guarded::start(&command, "TERM", &folder.log())
}

/// PgBouncer's auth_type=trust still wants every user in its file.
fn user_list(cluster: &Cluster) -> Result<String> {
    let session = Session::open(cluster.config(SUPERUSER, "postgres"))?;
    let rows = session.try_query("SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolcanlogin", &[])?;
    Ok(rows.iter().map(|row| format!("\"{}\" \"\"\n", row.get::<_, String>(0).replace('"', "\"\""))).collect())
}

fn configuration(db: &Db, sockets: &Path, users: &Path, settings: &[(&str, &str)]) -> String {
    let mut text = format!(
        "[databases]\n{name} = host={host} port={PORT} dbname={name}\n[pgbouncer]\n\
         pool_mode = transaction\ndefault_pool_size = 1\nlisten_addr =\nlisten_port = {PORT}\n\
         unix_socket_dir = {sockets}\nauth_type = trust\nauth_file = {users}\n",
        name = db.name(),
        host = db.cluster().sockets().display(),
        sockets = sockets.display(),
        users = users.display(),
    );
    for (name, value) in settings {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}
