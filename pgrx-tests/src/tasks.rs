//! `cargo xtask`: what each subcommand does. The command line itself is in `bin/xtask.rs`.

pub mod demo;
pub mod setup;
