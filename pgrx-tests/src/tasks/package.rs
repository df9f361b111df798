//! The release build as a tree to copy over a server's installation.

use anyhow::Result;

use super::setup;
use crate::{process, progress::say, server::Choice, workspace};

/// `cargo xtask package`
pub fn run(choice: &Choice) -> Result<()> {
    let ready = setup::ready(choice)?;
    let feature = ready.server.feature();
    // The paths in the tree are those of the real installation, not of our copy of it.
    let mut package = ready.toolchain.pgrx();
    package.arg("package").arg("--pg-config").arg(&ready.server.packaged_as);
    process::run_pgrx(package.args(["--no-default-features", "--features", &feature]))?;
    say(format_args!("the package is {}", workspace::target().join(format!("release/pg_tenancy-{feature}")).display()));
    Ok(())
}
