//! Counts the instructions of server processes: the server runs under valgrind's callgrind, each process leaves a file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::stand::{APP, STOCK, connect};
use crate::{
    cluster::{Cluster, SUPERUSER, Shutdown},
    packages,
    process::{self, Guarded, find_program},
    progress::step,
};

/// A server under callgrind, and where its processes leave their figures.
pub struct Counting {
    #[expect(dead_code, reason = "kept until its drop ends the server")]
    pub guarded: Guarded,
    pub folder: PathBuf,
}

/// Stops `cluster`'s own server and goes on with one under callgrind. The databases are those that will be used.
pub fn take_over(cluster: &Cluster, folder: &Path, databases: &[&str]) -> Result<Guarded> {
    cluster.stop(Shutdown::Fast);
    let (command, log) = (server(cluster, folder)?, folder.join("log"));
    // Not QUIT: a shell's background child ignores it until the server is up, which takes its time here.
    let mut guarded = Guarded::start(&command, "TERM", &log)?;
    step("starting a server under valgrind", || {
        process::wait_for("the server under valgrind to accept connections", Duration::from_secs(300), || {
            if let Some(status) = guarded.ended()? {
                bail!("it ended ({status}); see {}", log.display());
            }
            Ok(connect(cluster, SUPERUSER, STOCK).ok())
        })
    })?;
    // The first session of a database writes the cache files that all others read.
    for database in databases {
        connect(cluster, APP, database)?.close()?;
    }
    Ok(guarded)
}

/// The command that starts `cluster`'s server so.
fn server(cluster: &Cluster, folder: &Path) -> Result<Command> {
    if find_program("valgrind").is_none() {
        packages::ensure(&["valgrind"], "count instructions")?;
    }
    let valgrind = find_program("valgrind").context("valgrind is not in PATH")?;
    let mut command = process::as_server_user(valgrind)?;
    command
        .args(["--tool=callgrind", "--trace-children=yes", "--quiet"])
        // A forked process starts with its parent's figures; this is where it becomes a backend.
        .arg("--zero-before=InitPostgres")
        .arg(format!("--callgrind-out-file={}", folder.join("callgrind.%p").display()))
        .arg(cluster.server().bindir.join("postgres"))
        .arg("-D")
        .arg(cluster.data());
    Ok(command)
}

impl Counting {
    /// The instructions of a process since it was forked; waits for its end.
    pub fn instructions(&self, pid: i32) -> Result<u64> {
        let file = self.folder.join(format!("callgrind.{pid}"));
        process::wait_for(&format!("process {pid} to leave its figures"), Duration::from_secs(60), || {
            // The file is complete when its process is gone.
            if Path::new(&format!("/proc/{pid}")).exists() {
                return Ok(None);
            }
            Ok(fs::read_to_string(&file).ok().as_deref().and_then(total))
        })
    }
}

/// `totals: 123456`
fn total(text: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_total_is_read_from_callgrinds_file() {
        assert_eq!(total("events: Ir\nfn=(1)\n+3 5\ntotals: 12345\n"), Some(12345));
        assert_eq!(total("events: Ir\n"), None);
    }
}
