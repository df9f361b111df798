//! Everything that a server and a build need, found or made. The second time it takes a second.

use anyhow::Result;

use crate::{
    packages,
    process::{find_program, is_root},
    progress::say,
    server::{Choice, Server},
    toolchain::Toolchain,
};

/// A server and the tools to build for it.
#[derive(Debug)]
pub struct Ready {
    pub server: Server,
    pub toolchain: Toolchain,
}

pub fn ready(choice: &Choice) -> Result<Ready> {
    if is_root() && find_program("apt-get").is_some() {
        // cargo pgrx test --runas goes through sudo, even as root; with the server package comes the user it becomes.
        packages::ensure(&["sudo", "postgresql-common"], "run servers as root")?;
    }
    let server = Server::choose(choice)?;
    let toolchain = Toolchain::ready_for(&server)?;
    Ok(Ready { server, toolchain })
}

/// `cargo xtask setup`
pub fn run(choice: &Choice) -> Result<()> {
    let ready = ready(choice)?;
    if find_program("pgbouncer").is_none() && is_root() && find_program("apt-get").is_some() {
        packages::ensure(&["pgbouncer"], "test connection poolers")?;
    }
    say(format_args!("PostgreSQL {} in {}", ready.server.major, ready.server.bindir.display()));
    say("next: cargo xtask demo | test | psql");
    Ok(())
}
