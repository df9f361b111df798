//! cargo-pgrx in the exact version of the pgrx we build with, its home below `target/`, and the extension's installation.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    process::{self, find_program},
    progress::{say, step},
    server::Server,
    workspace::{root, target},
};

/// cargo-pgrx refuses to build with a pgrx of another version, so both are pinned to the same.
pub const PGRX_VERSION: &str = "0.18.1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

#[derive(Debug, Clone)]
pub struct Toolchain {
    cargo_pgrx: PathBuf,
    /// One per major: pgrx builds its bindings anew when config.toml changes, and one file for all would change with
    /// each major that is added.
    home: PathBuf,
}

impl Toolchain {
    /// Finds cargo-pgrx, or builds it (minutes, once), and makes `server` known to it.
    pub fn ready_for(server: &Server) -> Result<Self> {
        let toolchain = Self { cargo_pgrx: cargo_pgrx()?, home: target().join("pgrx").join(server.feature()) };
        toolchain.introduce(server)?;
        Ok(toolchain)
    }

    /// `cargo pgrx <arguments>` in the checkout.
    pub fn pgrx(&self) -> Command {
        let mut command = in_checkout(Command::new(&self.cargo_pgrx));
        command.env("PGRX_HOME", &self.home);
        // pgrx's test framework runs it again to install the extension.
        command.env("CARGO_PGRX", &self.cargo_pgrx).arg("pgrx");
        command
    }

    /// `cargo <arguments>` for what builds the extension.
    pub fn cargo(&self) -> Command {
        let mut command = cargo();
        command.env("PGRX_HOME", &self.home);
        command
    }

    /// `cargo pgrx init`, unless it was done: it rewrites config.toml.
    fn introduce(&self, server: &Server) -> Result<()> {
        let config = self.home.join("config.toml");
        let entry = format!("{} = \"{}\"", server.feature(), server.pg_config.display());
        if fs::read_to_string(&config).is_ok_and(|text| text.lines().any(|line| line.trim() == entry)) {
            return Ok(());
        }
        step(format_args!("cargo pgrx init for PostgreSQL {}", server.major), || {
            // --no-run: pgrx's own data folder is of no use to us.
            process::output(
                self.pgrx().arg("init").arg("--no-run").arg(format!("--{}", server.feature())).arg(&server.pg_config),
            )
            .map(drop)
        })
    }

    /// Builds the extension and installs it into the server.
    pub fn install(&self, server: &Server, profile: Profile) -> Result<()> {
        let release = profile == Profile::Release;
        let what = if release { "installing the extension (release build)" } else { "installing the extension" };
        step(format_args!("{what} into PostgreSQL {}", server.major), || {
            let mut command = self.pgrx();
            command.arg("install").arg("--pg-config").arg(&server.pg_config);
            command.args(["--no-default-features", "--features", &server.feature()]);
            if release {
                command.arg("--release");
            }
            process::run_pgrx(&mut command)
        })
    }
}

/// `cargo <arguments>` in the checkout, for what knows no PostgreSQL.
pub fn cargo() -> Command {
    in_checkout(Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())))
}

fn in_checkout(mut command: Command) -> Command {
    command.current_dir(root()).env("CARGO_TARGET_DIR", target());
    // `cargo run` describes *this* package to us through the environment; a cargo below must not take it for its own.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let about_us = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if about_us.iter().any(|prefix| text.starts_with(prefix)) || text == "CARGO_PRIMARY_PACKAGE" {
            command.env_remove(&name);
        }
    }
    // These replace the linker flags that cargo-pgrx sets, without which no SQL can be generated.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        if std::env::var_os(name).is_some() {
            say(format_args!("{name} is ignored: cargo-pgrx needs its own"));
            command.env_remove(name);
        }
    }
    command
}

fn cargo_pgrx() -> Result<PathBuf> {
    let ours = target().join("tools/bin/cargo-pgrx");
    if let Some(found) = [Some(ours.clone()), find_program("cargo-pgrx")].into_iter().flatten().find(|it| fits(it)) {
        return Ok(found);
    }
    step(format_args!("building cargo-pgrx {PGRX_VERSION} (once, some minutes)"), || {
        // --debug: builds in a third of the time, and it only drives cargo.
        let mut install = cargo();
        install.args(["install", "cargo-pgrx", "--version", PGRX_VERSION, "--locked", "--debug", "--force", "--root"]);
        install.arg(target().join("tools"));
        // A target folder of its own: cargo would otherwise put another gigabyte into ours.
        install.env_remove("CARGO_TARGET_DIR");
        process::run(&mut install).context("cargo-pgrx could not be built")
    })?;
    Ok(ours)
}

fn fits(cargo_pgrx: &Path) -> bool {
    let version = process::output(Command::new(cargo_pgrx).args(["pgrx", "--version"]));
    version.is_ok_and(|answer| answer.split_whitespace().next_back() == Some(PGRX_VERSION))
}
