//! The task runner's command line. What the commands do is in `tasks`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pg_tenancy_tests::{
    progress::paint,
    server::Choice,
    tasks::{bench, check, demo, package, setup, test},
    workspace,
};

#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "Sets up, tests and shows pg_tenancy",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(flatten)]
    server: Choice,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Finds or installs all that building and testing need
    Setup,
    /// Runs the tests: lints, plain, #[pg_test], golden sessions, races, real clients
    Test(test::Options),
    /// Form and clippy of both packages
    Check,
    /// Plays the demo on a server that stays up
    Demo,
    /// Opens psql on the demo's database
    Psql {
        /// Passed on to psql
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Stops the demo's server
    Stop,
    /// Compares variants side by side on a release build
    Bench(bench::Options),
    /// Builds the release as a tree to copy over a server's installation
    Package,
}

/// Not `main() -> Result`: that prints a backtrace where RUST_BACKTRACE is set, and our errors speak to a user.
fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", paint("31", "error:"));
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { server, task }: Arguments) -> Result<()> {
    match task {
        Task::Setup => {
            let _lock = workspace::lock_servers()?;
            setup::run(&server)
        }
        Task::Test(options) => test::run(&server, &options),
        Task::Check => check::run(&server),
        Task::Demo => demo::run(&server),
        Task::Bench(options) => bench::run(&server, &options),
        Task::Psql { arguments } => demo::psql(&server, &arguments),
        Task::Stop => demo::stop(),
        Task::Package => package::run(&server),
    }
}
