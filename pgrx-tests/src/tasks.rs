//! `cargo xtask`: what each subcommand does. The command line itself is in `bin/xtask.rs`.

pub mod bench;
pub mod check;
pub mod core_suite;
pub mod counted;
pub mod demo;
pub mod golden;
pub mod narrate;
pub mod package;
pub mod setup;
pub mod test;
