//! Rows of many tables, looked at for their tenants alone.

use super::plan::Known;
use crate::pg::Oid;
use crate::pg::tally::{Seen, tally};

/// A table whose rows need nothing but a tenant.
pub struct Plain {
    pub relation: Oid,
    /// The number of its tenant column.
    pub attribute: i16,
    /// Rows without a tenant are everybody's.
    pub is_shared: bool,
}

/// Of each table the current role may see all rows of: how many there are, and whether each has a known tenant.
pub fn tally_rows(tables: &[Plain], known: &Known) -> Vec<(Oid, i64, bool)> {
    let mut tallies = Vec::new();
    for table in tables {
        let mut last = None;
        let counted = tally(table.relation, table.attribute, |seen| match seen {
            Seen::Nothing => table.is_shared,
            Seen::Id(id) => known.has_id(id, &mut last),
            Seen::Number(number) => known.has_number(number),
            Seen::Code(code) => known.has_code(code),
            Seen::Packed => false,
        });
        if let Some((rows, is_clean)) = counted {
            tallies.push((table.relation, rows, is_clean));
        }
    }
    tallies
}
