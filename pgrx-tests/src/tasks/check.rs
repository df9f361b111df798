//! Form and lints of both packages.

use std::process::Command;

use anyhow::{Context, Result};

use super::setup::{self, Ready};
use crate::{process, progress::step, server::Choice, toolchain::cargo};

/// `cargo xtask check`
pub fn run(choice: &Choice) -> Result<()> {
    all(&setup::ready(choice)?)
}

/// Cheapest first: a misplaced brace should not cost a compilation.
pub fn all(ready: &Ready) -> Result<()> {
    step("cargo fmt --check", || {
        process::run(cargo().args(["fmt", "--all", "--", "--check", "-l"])).context("run cargo fmt --all")
    })?;
    step("clippy on the tests", || process::run(clippy(cargo(), "pg_tenancy_tests").args(["--", "-D", "warnings"])))?;
    step("clippy on the extension", || {
        let features = format!("{} pg_test", ready.server.feature());
        let mut clippy = clippy(ready.toolchain.cargo(), "pg_tenancy");
        process::run(clippy.args(["--no-default-features", "--features", &features, "--", "-D", "warnings"]))
    })
}

fn clippy(mut cargo: Command, package: &str) -> Command {
    cargo.args(["clippy", "--quiet", "--package", package, "--all-targets"]);
    cargo
}
