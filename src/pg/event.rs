//! Event triggers: what PostgreSQL passes them.

use super::{compat, spi};
use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

/// A call of an event trigger function, as a door receives it.
pub type Call = pg_sys::FunctionCallInfo;

/// Whether the command at hand takes this extension along: DROP EXTENSION of it or of one it requires, or DROP OWNED BY
/// its owner. DROP SCHEMA cannot: the extension belongs to pg_catalog.
pub fn drops_this_extension(call: Call) -> bool {
    // SAFETY: PostgreSQL passes an EventTriggerData to an event trigger; anything else is refused by its node tag.
    let statement = unsafe {
        let context = (*call).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            return false;
        }
        (*context.cast::<pg_sys::EventTriggerData>()).parsetree
    };
    if statement.is_null() {
        return false;
    }
    // SAFETY: the node's tag tells its type; the lists hold String and RoleSpec nodes by the grammar.
    unsafe {
        match (*statement).type_ {
            pg_sys::NodeTag::T_DropStmt => {
                let drop = statement.cast::<pg_sys::DropStmt>();
                let names = PgList::<pg_sys::Node>::from_pg((*drop).objects);
                (*drop).removeType == pg_sys::ObjectType::OBJECT_EXTENSION
                    && names.iter_ptr().any(|name| NEEDED.contains(&CStr::from_ptr(compat::string_node(name))))
            }
            pg_sys::NodeTag::T_DropOwnedStmt => {
                let roles = PgList::<pg_sys::RoleSpec>::from_pg((*statement.cast::<pg_sys::DropOwnedStmt>()).roles);
                spi::extension_owner()
                    .is_ok_and(|owner| roles.iter_ptr().any(|role| pg_sys::get_rolespec_oid(role, true) == owner))
            }
            _ => false,
        }
    }
}

/// This extension and what its control file requires.
const NEEDED: [&CStr; 2] = [c"pg_tenancy", c"plpgsql"];
