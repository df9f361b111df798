//! The roles that the fence lets past row security, as the backend remembers them.

use super::watched::{self, EXEMPT_ROLES};
use crate::error::TenancyError;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::rc::Rc;

/// A role and the moment its exemption ends, in microseconds of `timestamptz`; None for never.
type Exemption = (pg_sys::Oid, Option<i64>);

/// All exemptions, as of so many changes of the table.
type Known = (u64, Rc<[Exemption]>);

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// Whether `role` is exempt now.
pub fn is_exempt(role: pg_sys::Oid) -> Result<bool, TenancyError> {
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    let is_now = |(exempt, until): &Exemption| *exempt == role && until.is_none_or(|until| now < until);
    Ok(exemptions()?.iter().any(is_now))
}

fn exemptions() -> Result<Rc<[Exemption]>, TenancyError> {
    loop {
        let changes = EXEMPT_ROLES.changes();
        let known = KNOWN.with_borrow(|known| known.clone());
        if let Some((_, roles)) = known.filter(|(as_of, _)| *as_of == changes) {
            return Ok(roles);
        }
        let rows = EXEMPT_ROLES.rows(&[], |row| {
            let until = row.get::<TimestampWithTimeZone>(c"until").map(i64::from);
            Ok((watched::must(row, c"role")?, until))
        })?;
        let Some(rows) = rows else { return Ok([].into()) };
        // A change that arrived while the rows were read makes them doubtful.
        if changes == EXEMPT_ROLES.changes() {
            KNOWN.set(Some((changes, rows.into())));
        }
    }
}
