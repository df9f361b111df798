//! Debian's server, copied below `target/` so that nothing is written to /usr.
//! Its programs find their files relative to themselves, so a copy of the three trees is a complete installation.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Server;
use crate::{packages, process, progress, workspace};

fn prefix(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{major}"))
}

/// The major when this pg_config is Debian's own (its wrapper in /usr/bin included).
pub fn major_of(pg_config: &Path) -> Result<Option<u32>> {
    let bindir = process::output(std::process::Command::new(pg_config).arg("--bindir"))
        .with_context(|| format!("{} is no pg_config", pg_config.display()))?;
    let major = bindir.strip_prefix("/usr/lib/postgresql/").and_then(|rest| rest.strip_suffix("/bin"));
    Ok(major.and_then(|major| major.parse().ok()))
}

pub fn is_installed(major: u32) -> bool {
    prefix(major).join("bin/postgres").is_file()
        && Path::new(&format!("/usr/include/postgresql/{major}/server")).is_dir()
}

pub fn ensure_packages(major: u32) -> Result<()> {
    let (server, headers) = (format!("postgresql-{major}"), format!("postgresql-server-dev-{major}"));
    packages::ensure(&[&server, &headers, "gcc"], &format!("build for PostgreSQL {major} and run it"))?;
    if let Err(missing) = packages::ensure(&[&cron(major)], "test schedules") {
        eprintln!("schedules are not tested: {missing:#}");
    }
    Ok(())
}

fn cron(major: u32) -> String {
    format!("postgresql-{major}-cron")
}

/// The copy, made anew when Debian's packages have changed since.
pub fn relocated(major: u32) -> Result<Server> {
    let tree = workspace::state()?.join(format!("servers/debian-{major}"));
    let stamp = tree.join("version");
    let version = [format!("postgresql-{major}"), format!("postgresql-server-dev-{major}"), cron(major)]
        .iter()
        .map(|package| packages::installed_version(package).unwrap_or_else(|| "absent".to_owned()))
        .collect::<Vec<_>>()
        .join("\n");
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&version) {
        progress::step(format_args!("copying Debian's PostgreSQL {major} to {}", tree.display()), || {
            copy(major, &tree)?;
            // Last, so that an interrupted copy is made again.
            fs::write(&stamp, &version).with_context(|| format!("cannot write {}", stamp.display()))
        })?;
    }
    let mut server = Server::at(&tree.join(format!("usr/lib/postgresql/{major}/bin/pg_config")))?;
    server.packaged_as = prefix(major).join("bin/pg_config");
    Ok(server)
}

fn copy(major: u32, tree: &Path) -> Result<()> {
    workspace::remove(tree)?;
    let major = major.to_string();
    for part in ["usr/lib/postgresql", "usr/share/postgresql"] {
        let to = tree.join(part);
        fs::create_dir_all(&to)?;
        workspace::copy_tree(&Path::new("/").join(part).join(&major), &to)?;
    }
    fs::create_dir_all(tree.join("usr/include"))?;
    std::os::unix::fs::symlink("/usr/include/postgresql", tree.join("usr/include/postgresql"))?;
    Ok(())
}
