//! Event triggers: what PostgreSQL passes them.

use super::compat;
use pgrx::pg_sys;
use std::ffi::CStr;

/// A call of an event trigger function, as a door receives it.
pub type Call = pg_sys::FunctionCallInfo;

/// Whether the command at hand is a DROP EXTENSION that names this extension.
pub fn drops_this_extension(call: Call) -> bool {
    // SAFETY: PostgreSQL passes an EventTriggerData to an event trigger; anything else is refused by its node tag.
    unsafe {
        let context = (*call).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            return false;
        }
        let statement = (*context.cast::<pg_sys::EventTriggerData>()).parsetree;
        if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_DropStmt {
            return false;
        }
        let statement = statement.cast::<pg_sys::DropStmt>();
        if (*statement).removeType != pg_sys::ObjectType::OBJECT_EXTENSION {
            return false;
        }
        let names = pgrx::PgList::<pg_sys::Node>::from_pg((*statement).objects);
        names.iter_ptr().any(|name| CStr::from_ptr(compat::string_node(name)) == c"pg_tenancy")
    }
}
