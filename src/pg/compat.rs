//! What differs between PostgreSQL's major versions.

use crate::model::context::Stamp;
use pgrx::pg_sys;
use std::ffi::{CStr, c_void};

/// The local transaction id of `process`, zero outside a transaction.
///
/// # Safety
/// `process` points to a live PGPROC: this backend's, or that of the leader of its lock group.
#[inline(always)]
pub unsafe fn local_transaction_id(process: *const pg_sys::PGPROC) -> Stamp {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15", feature = "pg16"))]
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        (*process).lxid
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        (*process).vxid.lxid
    }
}

/// Memory that guc.c will free: from `malloc` up to PostgreSQL 15, from `guc_malloc` later.
pub fn guc_alloc(bytes: usize) -> *mut c_void {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: malloc has no precondition.
    let memory = unsafe { libc::malloc(bytes) };
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: guc_malloc has no precondition; LOG makes it return NULL rather than raise.
    let memory = unsafe { pg_sys::guc_malloc(pg_sys::LOG as i32, bytes) };
    assert!(!memory.is_null(), "out of memory");
    memory
}

/// Frees what `guc_alloc`, or guc.c itself, allocated.
///
/// # Safety
/// `memory` comes from there and is not used again.
pub unsafe fn guc_free(memory: *mut c_void) {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        libc::free(memory)
    }
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        pg_sys::guc_free(memory)
    }
}

/// guc.c's record of a setting, NULL when there is none.
pub fn find_setting(name: &CStr) -> *mut pg_sys::config_generic {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: guc.c keeps an array of that many valid records, each with a name.
    unsafe {
        let count = pg_sys::GetNumConfigOptions() as usize;
        std::slice::from_raw_parts(pg_sys::get_guc_variables(), count)
            .iter()
            .copied()
            .find(|record| CStr::from_ptr((**record).name).to_bytes().eq_ignore_ascii_case(name.to_bytes()))
            .unwrap_or(std::ptr::null_mut())
    }
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: the name is a C string; neither a placeholder nor an error is asked for.
    unsafe {
        pg_sys::find_option(name.as_ptr(), false, true, pg_sys::LOG as i32)
    }
}

/// guc.c's records. From PostgreSQL 16 on the list of them lives as long as the current memory context.
pub fn settings() -> impl Iterator<Item = &'static pg_sys::config_generic> {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: guc.c keeps an array of that many valid records.
    let records = unsafe {
        let count = pg_sys::GetNumConfigOptions() as usize;
        std::slice::from_raw_parts(pg_sys::get_guc_variables(), count)
    };
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: guc.c gives an array of that many valid records.
    let records = unsafe {
        let mut count = 0;
        let records = pg_sys::get_guc_variables(&mut count);
        std::slice::from_raw_parts(records, count as usize)
    };
    // SAFETY: see above; a record stays where it is.
    records.iter().map(|record| unsafe { &**record })
}

/// Refuses settings of this extension that it does not define.
pub fn reserve_setting_prefix(prefix: &CStr) {
    #[cfg(any(feature = "pg13", feature = "pg14"))]
    // SAFETY: the prefix is a C string.
    unsafe {
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr())
    }
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: the prefix is a C string.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr())
    }
}

/// The partitions of a relation, without those that are being detached.
///
/// # Safety
/// `relation` is open and locked, and stays so while the answer is used.
pub unsafe fn partitions_of(relation: pg_sys::Relation) -> pg_sys::PartitionDesc {
    #[cfg(feature = "pg13")]
    // SAFETY: the caller vouches for the relation.
    unsafe {
        pg_sys::RelationGetPartitionDesc(relation)
    }
    #[cfg(not(feature = "pg13"))]
    // SAFETY: the caller vouches for the relation.
    unsafe {
        pg_sys::RelationGetPartitionDesc(relation, true)
    }
}

/// The text of a parse tree's String node.
///
/// # Safety
/// `node` points to such a node.
pub unsafe fn string_node(node: *const pg_sys::Node) -> *const std::ffi::c_char {
    #[cfg(any(feature = "pg13", feature = "pg14"))]
    // SAFETY: the caller vouches for the node; it is a Value in these versions.
    unsafe {
        (*node.cast::<pg_sys::Value>()).val.str_
    }
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: the caller vouches for the node.
    unsafe {
        (*node.cast::<pg_sys::String>()).sval
    }
}

/// Whether `role` has EXECUTE on `function`.
pub fn may_execute(function: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: reads the catalog.
    let answer = unsafe { pg_sys::pg_proc_aclcheck(function, role, pg_sys::ACL_EXECUTE as pg_sys::AclMode) };
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: reads the catalog.
    let answer = unsafe {
        pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, pg_sys::ACL_EXECUTE as pg_sys::AclMode)
    };
    answer == pg_sys::AclResult::ACLCHECK_OK
}

unsafe extern "C-unwind" {
    // Not in the bindings.
    fn transformWhereClause(
        state: *mut pg_sys::ParseState,
        clause: *mut pg_sys::Node,
        kind: pg_sys::ParseExprKind::Type,
        construct: *const std::ffi::c_char,
    ) -> *mut pg_sys::Node;
}

/// The tree of a policy's expression on `relation`, as CREATE POLICY makes it.
///
/// # Safety
/// `relation` is open; `text` is an expression that we wrote, over columns of the relation.
pub unsafe fn parse_policy(relation: pg_sys::Relation, text: &str) -> *mut pg_sys::Node {
    let statement = std::ffi::CString::new(format!("SELECT {text}")).expect("our expressions hold no NUL");
    // SAFETY: the text is one SELECT of one expression, so the trees have that shape; the caller vouches for the rest.
    // The guard turns an error of the undeclared function into a panic, as for those of the bindings.
    unsafe {
        #[cfg(feature = "pg13")]
        let parsed = pg_sys::raw_parser(statement.as_ptr());
        #[cfg(not(feature = "pg13"))]
        let parsed = pg_sys::raw_parser(statement.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let raw = pg_sys::list_nth(parsed, 0).cast::<pg_sys::RawStmt>();
        let select = (*raw).stmt.cast::<pg_sys::SelectStmt>();
        let target = pg_sys::list_nth((*select).targetList, 0).cast::<pg_sys::ResTarget>();
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        (*state).p_sourcetext = statement.as_ptr();
        let item = pg_sys::addRangeTableEntryForRelation(
            state,
            relation,
            pg_sys::AccessShareLock as i32,
            std::ptr::null_mut(),
            false,
            false,
        );
        pg_sys::addNSItemToQuery(state, item, false, true, true);
        let tree = pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
            transformWhereClause(state, (*target).val, pg_sys::ParseExprKind::EXPR_KIND_POLICY, c"POLICY".as_ptr())
        });
        pg_sys::assign_expr_collations(state, tree);
        pg_sys::free_parsestate(state);
        tree
    }
}

/// The catalog's name of a type, empty for one that is gone.
pub fn type_name(type_oid: pg_sys::Oid) -> String {
    // SAFETY: a syscache lookup; the tuple is released before the copy of its name is given back.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as i32, pg_sys::Datum::from(type_oid));
        if tuple.is_null() {
            return String::new();
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        let name = CStr::from_ptr((*row).typname.data.as_ptr()).to_string_lossy().into_owned();
        pg_sys::ReleaseSysCache(tuple);
        name
    }
}

/// A relation in a range table, as the executor checks it.
pub struct Entry {
    pub relation: pg_sys::Oid,
    /// Rights are checked for it; not for a partition or child that comes with its parent.
    pub is_checked: bool,
    /// Its partitions and children come with it.
    pub with_children: bool,
    /// Rows are written or locked, not only read.
    pub writes: bool,
    /// The role whose rights count, zero for the current one.
    pub check_as: pg_sys::Oid,
}

impl Entry {
    /// The role whose rights count.
    pub fn user(&self) -> pg_sys::Oid {
        // SAFETY: reads a variable of the backend.
        if self.check_as == pg_sys::InvalidOid { unsafe { pg_sys::GetUserId() } } else { self.check_as }
    }
}

/// The relations of a range table.
///
/// # Safety
/// `range_table` holds range table entries, `permissions` (from PostgreSQL 16) the list they refer to; both stay.
pub unsafe fn entries(range_table: *mut pg_sys::List, permissions: *mut pg_sys::List) -> impl Iterator<Item = Entry> {
    // SAFETY: the caller vouches for the list, which may be NULL; it has as many cells as it says.
    let cells = unsafe {
        range_table.as_ref().map_or(&[][..], |list| std::slice::from_raw_parts(list.elements, list.length as usize))
    };
    // SAFETY: the caller vouches for both lists, whose cells are entries.
    cells.iter().filter_map(move |cell| unsafe { entry(cell.ptr_value.cast(), permissions) })
}

/// A range table entry as the executor checks it, None where it names no relation.
///
/// # Safety
/// As for `entries`.
pub unsafe fn entry(entry: *const pg_sys::RangeTblEntry, permissions: *mut pg_sys::List) -> Option<Entry> {
    // SAFETY: the caller vouches for the entry and the list.
    unsafe {
        if (*entry).relid == pg_sys::InvalidOid {
            return None;
        }
        #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
        let (rights, check_as) = {
            debug_assert!(permissions.is_null());
            if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
                return None;
            }
            ((*entry).requiredPerms, (*entry).checkAsUser)
        };
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        let (rights, check_as) = match (*entry).perminfoindex {
            0 => (0, pg_sys::InvalidOid),
            index => {
                let info = pg_sys::list_nth(permissions, index as i32 - 1).cast::<pg_sys::RTEPermissionInfo>();
                ((*info).requiredPerms, (*info).checkAsUser)
            }
        };
        Some(Entry {
            relation: (*entry).relid,
            is_checked: rights != 0,
            with_children: (*entry).inh,
            writes: rights & !(pg_sys::ACL_SELECT as pg_sys::AclMode) != 0,
            check_as,
        })
    }
}

/// The range table entry of a relation that is being planned.
///
/// # Safety
/// `root` and `relation` are of the planner, which passes them to its hooks.
pub unsafe fn planned_entry(root: *const pg_sys::PlannerInfo, relation: *const pg_sys::RelOptInfo) -> Option<Entry> {
    // SAFETY: the caller vouches for both; the array has an entry for each relation.
    unsafe {
        #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
        let permissions = std::ptr::null_mut();
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        let permissions = (*(*root).parse).rteperminfos;
        entry(*(*root).simple_rte_array.add((*relation).relid as usize), permissions)
    }
}

/// The fixed part of a relation's row in pg_class, None for one that is gone.
pub fn class_row(relation: pg_sys::Oid) -> Option<pg_sys::FormData_pg_class> {
    // SAFETY: a syscache lookup; the tuple is released after its fixed part was copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return None;
        }
        let row = *pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        pg_sys::ReleaseSysCache(tuple);
        Some(row)
    }
}

/// Whom a function belongs to; None for one that is gone.
pub fn function_owner(function: pg_sys::Oid) -> Option<pg_sys::Oid> {
    function_row(function, |row| row.proowner)
}

/// Whether a function runs with its owner's rights.
pub fn is_security_definer(function: pg_sys::Oid) -> bool {
    function_row(function, |row| row.prosecdef) == Some(true)
}

/// Whether a function is one that triggers call.
pub fn is_trigger_function(function: pg_sys::Oid) -> bool {
    function_row(function, |row| row.prorettype) == Some(pg_sys::TRIGGEROID)
}

/// The schema of a function; None for one that is gone.
pub fn function_schema(function: pg_sys::Oid) -> Option<pg_sys::Oid> {
    function_row(function, |row| row.pronamespace)
}

/// Something of a function's row in `pg_proc`.
fn function_row<T>(function: pg_sys::Oid, read: impl FnOnce(&pg_sys::FormData_pg_proc) -> T) -> Option<T> {
    // SAFETY: a syscache lookup; the tuple is released after what is wanted was copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return None;
        }
        let wanted = read(&*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>());
        pg_sys::ReleaseSysCache(tuple);
        Some(wanted)
    }
}

/// Whether `role` owns `relation`, itself or by membership.
pub fn owns(role: pg_sys::Oid, relation: pg_sys::Oid) -> bool {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: reads the catalog.
    unsafe {
        pg_sys::pg_class_ownercheck(relation, role)
    }
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: reads the catalog.
    unsafe {
        pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, role)
    }
}

/// InvalidSubTransactionId of c.h, which the bindings lack: made in no subtransaction of the present transaction.
pub const NO_SUBTRANSACTION: pg_sys::SubTransactionId = 0;

/// Whether `relation` is temporary and was there before this transaction.
pub fn is_older_temporary_table(relation: pg_sys::Oid) -> bool {
    // SAFETY: the caller is about to use the relation and holds a lock on it; it is closed again.
    unsafe {
        if pg_sys::get_rel_persistence(relation) as u8 != pg_sys::RELPERSISTENCE_TEMP {
            return false;
        }
        let open = pg_sys::RelationIdGetRelation(relation);
        if open.is_null() {
            return false;
        }
        let is_older = (*open).rd_createSubid == NO_SUBTRANSACTION;
        pg_sys::RelationClose(open);
        is_older
    }
}

/// Whether the option `name` of a utility statement is switched on.
///
/// # Safety
/// `options` is a list of such options.
pub unsafe fn has_option(options: *mut pg_sys::List, name: &CStr) -> bool {
    // SAFETY: the caller vouches for the list.
    unsafe {
        let options = pgrx::PgList::<pg_sys::DefElem>::from_pg(options);
        let last = options.iter_ptr().filter(|option| CStr::from_ptr((**option).defname) == name).last();
        last.is_some_and(|option| pg_sys::defGetBoolean(option))
    }
}

/// Sets back the settings that no library knows and that the session set in earlier transactions.
pub fn forget_session_placeholders() {
    // SAFETY: setting one back changes no other record; the names belong to the records.
    unsafe {
        for record in settings() {
            let is_placeholder = record.flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as i32 != 0;
            if is_placeholder && record.source == pg_sys::GucSource::PGC_S_SESSION && record.stack.is_null() {
                pg_sys::set_config_option(
                    record.name,
                    std::ptr::null(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SET,
                    true,
                    0,
                    false,
                );
            }
        }
    }
}
