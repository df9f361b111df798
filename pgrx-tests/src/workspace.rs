//! Where things lie: the checkout, its target/, and a folder that the server's system user can reach.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};

use crate::process::{self, server_user};

/// The checkout: the folder of the root `Cargo.toml`.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("pgrx-tests/ lies in the checkout")
}

/// Cargo's target folder; all that the task runner makes and keeps lies below it.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The folder for servers and clusters: `target/`, or one of this checkout in `$TMPDIR/pg_tenancy-$UID` where the server's system user cannot
/// reach the checkout (root works in `/root`, the server must not run as root).
pub fn state() -> Result<&'static Path> {
    static STATE: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = STATE.get() {
        return Ok(found);
    }
    let target = target();
    fs::create_dir_all(&target).with_context(|| format!("cannot create {}", target.display()))?;
    let chosen = if is_reachable(&target)? {
        target
    } else {
        let own = private_temp()?.join(short_name(&target));
        fs::create_dir_all(&own).with_context(|| format!("cannot create {}", own.display()))?;
        own
    };
    Ok(STATE.get_or_init(|| chosen))
}

fn is_reachable(dir: &Path) -> Result<bool> {
    let Some(user) = server_user()? else {
        return Ok(true);
    };
    let mut test = std::process::Command::new("test");
    test.arg("-x").arg(dir).current_dir("/");
    user.take_over(&mut test);
    Ok(test.status().context("cannot run test(1)")?.success())
}

/// A folder of ours in the temp dir. The name can be guessed, so a folder that somebody else made first is refused.
pub fn private_temp() -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let dir = std::env::temp_dir().join(format!("pg_tenancy-{uid}"));
    match fs::DirBuilder::new().mode(0o755).create(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(&dir)?;
            if !found.is_dir() || found.uid() != uid {
                bail!("{} belongs to another user; set TMPDIR to a folder of your own", dir.display());
            }
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot create {}", dir.display()));
        }
    }
    Ok(dir)
}

/// A folder that belongs to the server's system user, mode 0700: nobody else may reach the socket or the data.
pub fn folder_of_server_user(dir: &Path) -> Result<()> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot create {}", dir.display()));
        }
        _ => {}
    }
    match server_user()? {
        Some(user) => user.give(dir),
        None => Ok(()),
    }
}

/// `sun_path` holds 108 bytes with its NUL, and PostgreSQL adds the file name and, for the lock, `.lock`.
const SOCKET_PATH_LIMIT: usize = 107;

/// A folder for sockets: `wanted` when its path is short enough, else one named after it in the temp dir.
pub fn socket_folder(wanted: &Path) -> Result<PathBuf> {
    let fits = |dir: &Path| dir.as_os_str().len() + "/.s.PGSQL.65535.lock".len() <= SOCKET_PATH_LIMIT;
    if fits(wanted) {
        folder_of_server_user(wanted)?;
        return Ok(wanted.to_owned());
    }
    let name = short_name(wanted);
    let mut short = private_temp()?.join(&name);
    if !fits(&short) {
        short = PathBuf::from(format!("/tmp/pg_tenancy-{}-{name}", rustix::process::geteuid().as_raw()));
    }
    folder_of_server_user(&short)?;
    Ok(short)
}

/// A short name for a path, the same in every run, which std's hasher does not promise: FNV-1a.
fn short_name(path: &Path) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{hash:016x}")
}

/// Removes a folder and all in it; one that is not there is fine.
pub fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Copies a tree with its modes and links.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    process::run(std::process::Command::new("cp").arg("-a").arg(from).arg(to))
}

/// One `cargo xtask` at a time installs into a server and tests on it: the library must not change under a running test.
/// Held until the file is dropped.
pub fn lock_servers() -> Result<fs::File> {
    let path = target().join("xtask.lock");
    fs::create_dir_all(target())?;
    let file = fs::File::options().create(true).truncate(false).write(true).open(&path)?;
    if file.try_lock().is_err() {
        crate::progress::say("another cargo xtask uses this checkout's servers; waiting for it to end");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}
