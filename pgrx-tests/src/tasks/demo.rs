//! The demo: a server that stays up, so that one can look around in it, and the story that is played on it.

mod place;

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};

use self::place::Place;
use super::{
    narrate,
    setup::{self, Ready},
};
use crate::{
    names::quote_ident,
    progress::{paint, say, step},
    server::Choice,
    toolchain::Profile,
    workspace,
};

const DATABASE: &str = "demo";

/// `cargo xtask demo`: every script in `pgrx-tests/examples`, in order, on a new server.
pub fn run(choice: &Choice) -> Result<()> {
    let lock = workspace::lock_servers()?;
    let folder = workspace::root().join("pgrx-tests/examples");
    let scripts = narrate::scripts(&folder)?;
    let ready = setup::ready(choice)?;
    let place = Place::find()?;
    fresh(&ready, &place)?;
    drop(lock);
    let mut surprises = Vec::new();
    for script in &scripts {
        let mut psql = narrate::psql(&ready.server)?;
        place.aim(&mut psql, DATABASE);
        surprises.extend(narrate::play(&mut psql, script, &mut std::io::stdout().lock())?);
    }
    if !surprises.is_empty() {
        bail!("the demo did not go as told:\n  {}", surprises.join("\n  "));
    }
    println!(
        "\n{}",
        paint("1", "The server is still up: look around with cargo xtask psql, end it with cargo xtask stop.")
    );
    Ok(())
}

/// `cargo xtask stop`
pub fn stop() -> Result<()> {
    let place = Place::find()?;
    match place.server()? {
        Some(server) if place.is_running() => place.stop(&server)?,
        _ => {
            say("the demo's server is not running");
            return Ok(());
        }
    }
    say(format_args!("the demo's server has stopped; its data stay in {}", place.data().display()));
    Ok(())
}

/// A new cluster with an empty database `demo`, whatever was there before.
fn fresh(ready: &Ready, place: &Place) -> Result<()> {
    let Ready { server, toolchain } = ready;
    toolchain.install(server, Profile::Dev)?;
    if let Some(before) = place.server()? {
        place.stop(&before)?;
    }
    step("starting the demo's server", || {
        place.make(server)?;
        place.start(server)?;
        place.session("postgres")?.run_or_tell(&format!("CREATE DATABASE {}", quote_ident(DATABASE)))
    })
}

/// `cargo xtask psql`: psql on the demo's database; without a demo, on a new one with the extension and nothing else.
pub fn psql(choice: &Choice, arguments: &[String]) -> Result<()> {
    let place = Place::find()?;
    let server = match place.server()? {
        Some(server) => {
            if !place.is_running() {
                step("starting the demo's server", || place.start(&server))?;
            }
            server
        }
        None => {
            let _lock = workspace::lock_servers()?;
            let ready = setup::ready(choice)?;
            fresh(&ready, &place)?;
            place.session(DATABASE)?.run_or_tell("CREATE EXTENSION pg_tenancy")?;
            ready.server
        }
    };
    let mut command = Command::new(server.bindir.join("psql"));
    place.aim(&mut command, DATABASE);
    Err(command.args(arguments).exec()).context("cannot run psql")
}
