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
        process::run(cargo().args(["fmt", "--all", "--check"])).context("run cargo fmt --all")
    })?;
    step("clippy on the tests", || {
        process::run(clippy("pg_tenancy_tests").args(["--", "-D", "warnings"]))
    })?;
    step("clippy on the extension", || {
        let features = format!("{} pg_test", ready.server.feature());
        process::run(clippy("pg_tenancy").args([
            "--no-default-features",
            "--features",
            &features,
            "--",
            "-D",
            "warnings",
        ]))
    })
}

fn clippy(package: &str) -> Command {
    let mut command = cargo();
    command.args(["clippy", "--quiet", "--package", package, "--all-targets"]);
    command
}
