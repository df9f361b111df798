//! Runs pg_tenancy on real servers with real clients.
//!
//! Two halves. The first finds or makes a server and a toolchain: `workspace`, `process`, `packages`, `server`, `toolchain`.
//! The second is what a test says: [`Cluster`], [`Db`], [`Role`], [`Session`], [`TenantSession`].
//! `tasks` joins them into `cargo xtask`.

mod blame;
pub mod cluster;
pub mod db;
pub mod names;
pub mod packages;
pub mod pooler;
pub mod process;
pub mod progress;
pub mod server;
pub mod session;
pub mod tasks;
pub mod tenant;
pub mod toolchain;
pub mod workspace;

pub use cluster::{Cluster, Shutdown};
pub use db::{Db, Role};
pub use names::{NASTY_NAMES, quote_ident, quote_literal};
pub use pooler::Pooler;
pub use postgres::{Client, Config, error::DbError};
pub use server::Server;
pub use session::Session;
pub use tenant::{Tenant, TenantSession};
