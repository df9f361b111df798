//! Debian packages: installed when we are root, otherwise named together with the command that installs them.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    process::{self, find_program, is_root},
    progress::step,
};

/// The version that is installed, as dpkg has it.
pub fn installed_version(package: &str) -> Option<String> {
    let answer =
        process::output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status} ${Version}", package]));
    answer.ok()?.strip_prefix("installed ").map(str::to_owned)
}

/// Sees to it that the packages are there; `purpose` ends the sentence "… are needed to".
pub fn ensure(packages: &[&str], purpose: &str) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|name| installed_version(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if find_program("apt-get").is_none() {
        bail!(
            "{names} (Debian's package names) needed to {purpose}, and this system has no apt-get; \
             install their equivalent and pass --pg-config PATH"
        );
    }
    if !is_root() {
        bail!("missing packages, needed to {purpose}: {names}\n  sudo apt-get install {names}");
    }
    step(format_args!("apt-get install {names}"), || {
        // The lists of a fresh image are empty or old; one attempt without them is a second, `update` may be many.
        if install(&missing).is_ok() {
            return Ok(());
        }
        process::run(apt().arg("update").arg("-q"))?;
        install(&missing)
    })
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    // Another apt on a shared machine holds the lock for minutes, not for ever.
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]);
    apt
}

fn install(packages: &[&str]) -> Result<()> {
    process::output(apt().args(["install", "-q", "-y", "--no-install-recommends"]).args(packages)).map(drop)
}
