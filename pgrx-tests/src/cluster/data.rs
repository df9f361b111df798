//! A cluster's files: the folder of one run, initdb, postgresql.conf.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use super::SUPERUSER;
use crate::{process, server::Server, workspace};

/// Settings of every test cluster. It must be fast and may lose all it has; statistics of time and size stay PostgreSQL's own.
pub const FOR_TESTS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("checkpoint_timeout", "1h"),
    ("max_connections", "100"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
];

/// The library is there before any connection, and with it the fence.
pub const PRELOADED: (&str, &str) = ("shared_preload_libraries", "pg_tenancy");

/// The folder of one server process: `data/`, `log`, `s/` for the socket. Removed when dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// `s/` in it, or elsewhere when that path were too long for a socket.
    sockets: PathBuf,
    /// Locked as long as this process lives; a folder whose lock is free belongs to a run that was killed.
    _lock: fs::File,
}

impl Folder {
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let all = workspace::state()?.join("run");
        fs::create_dir_all(&all).with_context(|| format!("cannot create {}", all.display()))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            sweep_in(&all)?;
        }
        let name = format!("{}-{number}", std::process::id());
        // The lock comes first: a folder without one would look like a leftover to somebody who sweeps just now.
        let lock = fs::File::create(all.join(format!("{name}.lock")))?;
        lock.lock()?;
        let path = all.join(name);
        workspace::folder_of_server_user(&path)?;
        let sockets = workspace::socket_folder(&path.join("s"))?;
        Ok(Self { path, sockets, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub fn sockets(&self) -> &Path {
        &self.sockets
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let lock = self.path.with_extension("lock");
        let removed = workspace::remove(&self.sockets)
            .and_then(|()| workspace::remove(&self.path))
            .and_then(|()| Ok(fs::remove_file(lock)?));
        if let Err(error) = removed {
            eprintln!("{error:#}");
        }
    }
}

/// Removes what ended processes left behind: those that were killed, and test binaries whose servers live in a `static`.
pub fn sweep() -> Result<()> {
    sweep_in(&workspace::state()?.join("run"))
}

/// Their servers end by themselves (`process::Guarded`), so nothing uses these folders any more; a server that still does
/// is waited for.
fn sweep_in(all: &Path) -> Result<()> {
    for entry in fs::read_dir(all)?.flatten() {
        let lock = entry.path();
        if lock.extension().is_none_or(|end| end != "lock") {
            continue;
        }
        let Ok(file) = fs::File::open(&lock) else {
            continue;
        };
        if file.try_lock().is_err() {
            continue;
        }
        let folder = lock.with_extension("");
        if let Some(pid) = postmaster(&folder.join("data")) {
            // The server's shell has the order to end it; give it the time that takes.
            process::wait_for("the server of a killed run to end", std::time::Duration::from_secs(10), || {
                Ok((!is_running_on(pid, &folder.join("data"))).then_some(()))
            })
            .with_context(|| format!("process {pid} still uses {}; end it", folder.display()))?;
        }
        workspace::remove(&workspace::socket_folder(&folder.join("s"))?)?;
        workspace::remove(&folder)?;
        fs::remove_file(&lock)?;
    }
    Ok(())
}

fn postmaster(data: &Path) -> Option<i32> {
    fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

/// Whether that process is a server on that data, and not another one which has got its number since.
fn is_running_on(pid: i32, data: &Path) -> bool {
    let command = process::output(Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]));
    command.is_ok_and(|line| line.contains(&data.display().to_string()))
}

pub fn initdb(server: &Server, data: &Path) -> Result<()> {
    // trust: the socket's folder admits nobody but the server's user and root. C: the same order of text everywhere.
    process::output(
        server
            .program("initdb")?
            .args(["--username", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(data),
    )
    .map(drop)
}

/// Appends settings; of two lines for one setting PostgreSQL takes the later.
pub fn configure(folder: &Folder, settings: &[(&str, &str)]) -> Result<()> {
    write_settings(&folder.data(), folder.sockets(), settings)
}

pub fn write_settings(data: &Path, sockets: &Path, settings: &[(&str, &str)]) -> Result<()> {
    let conf = data.join("postgresql.conf");
    let mut file = fs::File::options().append(true).open(&conf).with_context(|| format!("{}", conf.display()))?;
    let sockets = sockets.display().to_string();
    let port = super::PORT.to_string();
    let place = [("unix_socket_directories", sockets.as_str()), ("port", port.as_str())];
    for (name, value) in place.iter().chain(settings) {
        writeln!(file, "{name} = '{}'", value.replace('\'', "''"))?;
    }
    Ok(())
}

/// The end of a log, for an error message.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_else(|error| format!("({}: {error})", log.display()));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
