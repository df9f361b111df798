//! The sides of a comparison: the floor, ours, and what people use today.

use anyhow::Result;
use postgres::Client;
use uuid::Uuid;

/// One way of keeping tenants apart. Each has the same tables in a schema of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// No row security; the query says `WHERE tenant_id = $1`.
    Floor,
    /// `tenancy.protect_table`.
    Ours,
    /// A policy with `current_setting(..)::uuid`.
    Setting,
    /// A policy with `(SELECT current_setting(..)::uuid)`.
    Subselect,
    /// A policy with a plpgsql STABLE function.
    Plpgsql,
}

pub const ALL: [Side; 5] = [Side::Floor, Side::Ours, Side::Setting, Side::Subselect, Side::Plpgsql];

pub const SCHEMAS: [&str; 5] = ["floor", "ours", "setting", "subselect", "plpgsql"];

impl Side {
    pub fn schema(self) -> &'static str {
        SCHEMAS[self as usize]
    }

    /// What the table calls it.
    pub fn label(self) -> &'static str {
        match self {
            Side::Floor => "WHERE tenant_id = $1, no row security",
            Side::Ours => "pg_tenancy",
            Side::Setting => "current_setting(..)::uuid",
            Side::Subselect => "(SELECT current_setting(..)::uuid)",
            Side::Plpgsql => "plpgsql STABLE function",
        }
    }

    /// Makes `tenant` the one of the open transaction.
    pub fn enter(self, client: &mut Client, tenant: Uuid) -> Result<()> {
        let tenant = tenant.to_string();
        match self {
            Side::Floor => {}
            Side::Ours => {
                client.query("SELECT tenancy.set_tenant($1)", &[&tenant])?;
            }
            Side::Setting | Side::Subselect | Side::Plpgsql => {
                client.query("SELECT set_config('bench.tenant', $1, true)", &[&tenant])?;
            }
        }
        Ok(())
    }
}
