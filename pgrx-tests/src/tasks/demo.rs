//! The demo's server: it stays up between commands, so that one can look around in it.

use std::{os::unix::process::CommandExt, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use super::setup::{self, Ready};
use crate::{
    cluster::{PORT, SUPERUSER, data},
    names::quote_ident,
    process,
    progress::{say, step},
    server::{Choice, Server},
    session::Session,
    toolchain::Profile,
    workspace,
};

const DATABASE: &str = "demo";

/// `data/`, `log` and the socket below `target/demo`.
struct Place {
    folder: PathBuf,
    sockets: PathBuf,
}

impl Place {
    fn find() -> Result<Self> {
        let folder = workspace::state()?.join("demo");
        workspace::folder_of_server_user(&folder)?;
        let sockets = workspace::socket_folder(&folder.join("s"))?;
        Ok(Self { folder, sockets })
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The major that made the data, if there are any.
    fn major(&self) -> Option<u32> {
        std::fs::read_to_string(self.data().join("PG_VERSION"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn is_running(&self) -> bool {
        self.sockets.join(format!(".s.PGSQL.{PORT}")).exists() && self.session("postgres").is_ok()
    }

    fn session(&self, database: &str) -> Result<Session> {
        let mut config = postgres::Config::new();
        config
            .host_path(&self.sockets)
            .port(PORT)
            .user(SUPERUSER)
            .dbname(database);
        Session::open(config).with_context(|| {
            format!(
                "the demo's server does not answer in {}",
                self.sockets.display()
            )
        })
    }

    fn aim(&self, command: &mut Command, database: &str) {
        command
            .env("PGHOST", &self.sockets)
            .env("PGPORT", PORT.to_string());
        command.env("PGUSER", SUPERUSER).env("PGDATABASE", database);
    }

    /// pg_ctl, because this server is to outlive us.
    fn pg_ctl(&self, server: &Server, order: &[&str]) -> Result<()> {
        let mut command = server.program("pg_ctl")?;
        command
            .args(["--silent", "--wait", "--pgdata"])
            .arg(self.data())
            .args(order);
        process::output(&mut command).map(drop)
    }

    fn start(&self, server: &Server) -> Result<()> {
        let log = self.folder.join("log");
        let Some(log_name) = log.to_str() else {
            bail!("{} is no text", log.display())
        };
        self.pg_ctl(server, &["--log", log_name, "start"])
            .with_context(|| {
                format!(
                    "the log of the demo's server ends with:\n{}",
                    data::tail(&log)
                )
            })
    }

    fn stop(&self, server: &Server) -> Result<()> {
        if self.data().join("postmaster.pid").exists() {
            self.pg_ctl(server, &["--mode=fast", "stop"])?;
        }
        Ok(())
    }
}

/// `cargo xtask stop`
pub fn stop(choice: &Choice) -> Result<()> {
    let place = Place::find()?;
    if !place.is_running() {
        say("the demo's server is not running");
        return Ok(());
    }
    place.stop(&server_of(&place, choice)?)?;
    say(format_args!(
        "the demo's server has stopped; its data stay in {}",
        place.data().display()
    ));
    Ok(())
}

/// The server that made the demo's data: the data of one major cannot be used by another.
fn server_of(place: &Place, choice: &Choice) -> Result<Server> {
    let asked = choice.pg.is_some() || choice.pg_config.is_some();
    let choice = match place.major() {
        Some(major) if !asked => Choice {
            pg: Some(major),
            pg_config: None,
        },
        _ => choice.clone(),
    };
    Server::choose(&choice)
}

/// A new cluster with the extension in database `demo`, whatever was there before.
fn fresh(ready: &Ready, place: &Place) -> Result<()> {
    let Ready { server, toolchain } = ready;
    toolchain.install(server, Profile::Dev)?;
    if place.major().is_some() {
        place.stop(&server_of(place, &Choice::default())?)?;
        workspace::remove(&place.data())?;
    }
    step("starting the demo's server", || {
        data::initdb(server, &place.data())?;
        data::write_settings(&place.data(), &place.sockets, data::FOR_TESTS)?;
        place.start(server)?;
        place
            .session("postgres")?
            .run_or_tell(&format!("CREATE DATABASE {}", quote_ident(DATABASE)))
    })
}

/// `cargo xtask psql`: psql on the demo's database; without a demo, on a new one with the extension and nothing else.
pub fn psql(choice: &Choice, arguments: &[String]) -> Result<()> {
    let place = Place::find()?;
    let server = if place.is_running() {
        server_of(&place, choice)?
    } else {
        let lock = workspace::lock_servers()?;
        let ready = setup::ready(choice)?;
        if place.major() == Some(ready.server.major) {
            step("starting the demo's server", || place.start(&ready.server))?;
        } else {
            fresh(&ready, &place)?;
            place
                .session(DATABASE)?
                .run_or_tell("CREATE EXTENSION pg_tenancy")?;
        }
        drop(lock);
        ready.server
    };
    let mut command = Command::new(server.bindir.join("psql"));
    place.aim(&mut command, DATABASE);
    Err(command.args(arguments).exec()).context("cannot run psql")
}
