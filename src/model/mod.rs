//! Plain data and decisions that need no server: names, statements, tenants, tables.
#![forbid(unsafe_code)]

pub mod audit;
pub mod catalogs;
pub mod context;
pub mod fence;
pub mod ident;
pub mod policy;
pub mod server;
pub mod setting;
pub mod sql;
pub mod table;
pub mod tenant;
pub mod violation;

pub use ident::{Ident, QualifiedName};
pub use setting::InvalidSetting;
pub use sql::{Deparsed, Sql};
pub use table::Table;
pub use tenant::{Code, Key, KeyKind, Status};
pub use violation::Violation;
