//! Where the demo's server lives, and its life: started by pg_ctl, because it outlives the command.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cluster::{PORT, SUPERUSER, data},
    process,
    server::Server,
    session::Session,
    workspace,
};

/// `data/`, `log` and the socket below `target/demo`.
pub struct Place {
    folder: PathBuf,
    sockets: PathBuf,
}

impl Place {
    pub fn find() -> Result<Self> {
        let folder = workspace::state()?.join("demo");
        workspace::folder_of_server_user(&folder)?;
        let sockets = workspace::socket_folder(&folder.join("s"))?;
        Ok(Self { folder, sockets })
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Whose data these are; the data of one server cannot be used by another major. `None` while there are none.
    pub fn server(&self) -> Result<Option<Server>> {
        match fs::read_to_string(self.maker()) {
            Ok(pg_config) => Server::at(Path::new(&pg_config)).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.maker().display())),
        }
    }

    fn maker(&self) -> PathBuf {
        self.folder.join("pg_config")
    }

    /// A new empty cluster in place of what was there.
    pub fn make(&self, server: &Server) -> Result<()> {
        workspace::remove(&self.data())?;
        data::initdb(server, &self.data())?;
        let settings = [data::FOR_TESTS, &[data::PRELOADED]].concat();
        data::write_settings(&self.data(), &self.sockets, &settings)?;
        let Some(pg_config) = server.pg_config.to_str() else { bail!("{} is no text", server.pg_config.display()) };
        fs::write(self.maker(), pg_config).with_context(|| format!("cannot write {}", self.maker().display()))
    }

    pub fn is_running(&self) -> bool {
        self.sockets.join(format!(".s.PGSQL.{PORT}")).exists() && self.session("postgres").is_ok()
    }

    pub fn session(&self, database: &str) -> Result<Session> {
        let mut config = postgres::Config::new();
        config.host_path(&self.sockets).port(PORT).user(SUPERUSER).dbname(database);
        Session::open(config)
            .with_context(|| format!("the demo's server does not answer in {}", self.sockets.display()))
    }

    pub fn aim(&self, command: &mut Command, database: &str) {
        command.env("PGHOST", &self.sockets).env("PGPORT", PORT.to_string());
        command.env("PGUSER", SUPERUSER).env("PGDATABASE", database);
    }

    /// pg_ctl, because this server is to outlive us.
    pub fn pg_ctl(&self, server: &Server, order: &[&str]) -> Result<()> {
        let mut command = server.program("pg_ctl")?;
        command.args(["--silent", "--wait", "--pgdata"]).arg(self.data()).args(order);
        process::output(&mut command).map(drop)
    }

    pub fn start(&self, server: &Server) -> Result<()> {
        let log = self.folder.join("log");
        let Some(log_name) = log.to_str() else { bail!("{} is no text", log.display()) };
        self.pg_ctl(server, &["--log", log_name, "start"])
            .with_context(|| format!("the log of the demo's server ends with:\n{}", data::tail(&log)))
    }

    pub fn stop(&self, server: &Server) -> Result<()> {
        if self.data().join("postmaster.pid").exists() {
            self.pg_ctl(server, &["--mode=fast", "stop"])?;
        }
        Ok(())
    }
}
