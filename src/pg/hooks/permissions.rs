//! The permission check of executor and planner: a protected relation is used through its row security, or by a role that
//! is exempt.

use super::{RULES, catalogs, hygiene, statements};
use crate::error::TenancyError;
use crate::model::fence::{Access, Gap, Refusal, Standing};
use crate::pg::compat::{self, Entry};
use crate::pg::guc::{self, Backend};
use crate::pg::protected::{self, Protected};
use crate::pg::{exempt, nesting, report, role, settings, spi};
use pgrx::pg_sys;
use pgrx::prelude::*;

static NEXT: Backend<pg_sys::ExecutorCheckPerms_hook_type> = Backend::new(None);

pub fn install() {
    // SAFETY: the hook variables are set while the library is loaded, by one thread.
    unsafe {
        NEXT.set(pg_sys::ExecutorCheckPerms_hook);
        pg_sys::ExecutorCheckPerms_hook = Some(check_permissions);
        NEXT_RELATION_INFO.set(pg_sys::get_relation_info_hook);
        pg_sys::get_relation_info_hook = Some(relation_info);
    }
}

#[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
#[pg_guard]
unsafe extern "C-unwind" fn check_permissions(range_table: *mut pg_sys::List, raises: bool) -> bool {
    // SAFETY: execMain.c passes a range table.
    let admitted = unsafe { admitted(range_table, std::ptr::null_mut(), raises) };
    // SAFETY: the same arguments.
    admitted && NEXT.get().is_none_or(|next| unsafe { next(range_table, raises) })
}

#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
#[pg_guard]
unsafe extern "C-unwind" fn check_permissions(
    range_table: *mut pg_sys::List,
    permissions: *mut pg_sys::List,
    raises: bool,
) -> bool {
    // SAFETY: execMain.c passes a range table and what it refers to.
    let admitted = unsafe { admitted(range_table, permissions, raises) };
    // SAFETY: the same arguments.
    admitted && NEXT.get().is_none_or(|next| unsafe { next(range_table, permissions, raises) })
}

static NEXT_RELATION_INFO: Backend<pg_sys::get_relation_info_hook_type> = Backend::new(None);

/// The planner's first look at a relation. It goes on to give the table's most common values to the operators of the query,
/// so that the executor's check would come too late.
unsafe extern "C-unwind" fn relation_info(
    root: *mut pg_sys::PlannerInfo,
    relation: pg_sys::Oid,
    is_parent: bool,
    info: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: plancat.c passes what it works on; the next hook gets the same arguments.
    unsafe {
        plan(root, info);
        if let Some(next) = NEXT_RELATION_INFO.get() {
            next(root, relation, is_parent, info);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn plan(root: *mut pg_sys::PlannerInfo, info: *mut pg_sys::RelOptInfo) {
    // SAFETY: the caller vouches for both. Partitions and children come with their parent.
    let checked = unsafe {
        if (*info).reloptkind != pg_sys::RelOptKind::RELOPT_BASEREL
            || passes()
            || nesting::is_foreign_key_plan()
            || nesting::is_own_plan()
        {
            return;
        }
        // CREATE INDEX plans its table without reading a row for anybody, and checks no rights on it.
        let entry = compat::planned_entry(root, info).filter(|entry| entry.is_checked);
        entry.map_or(Ok(Kept::Nothing), |entry| check_entry(&entry))
    };
    if let Err(refusal) = checked {
        report::raise(refusal)
    }
}

/// Whether nobody works who could be refused: extension scripts, pg_upgrade, our own functions.
fn passes() -> bool {
    // SAFETY: variables of the backend.
    let is_script = unsafe { pg_sys::creating_extension || pg_sys::IsBinaryUpgrade };
    is_script || spi::is_own_work()
}

/// Whether the fence lets the range table pass; raises its refusal where it may.
unsafe fn admitted(range_table: *mut pg_sys::List, permissions: *mut pg_sys::List, raises: bool) -> bool {
    if passes() || nesting::is_foreign_key_query() || nesting::is_own_query() {
        return true;
    }
    // SAFETY: the caller vouches for the lists.
    match unsafe { check(range_table, permissions) } {
        Ok(()) => true,
        Err(refusal) if raises => report::raise(refusal),
        Err(_) => false,
    }
}

unsafe fn check(range_table: *mut pg_sys::List, permissions: *mut pg_sys::List) -> Result<(), TenancyError> {
    // SAFETY: the caller vouches for the lists.
    let entries = || unsafe { compat::entries(range_table, permissions) };
    hygiene::note_portal();
    if hygiene::is_watchful() {
        for entry in entries() {
            hygiene::refuse_foreign_table(entry.relation)?;
        }
        hygiene::scrub_if_due()?;
    }
    for entry in entries() {
        // A partition or child comes with its parent, whose policies filter it; see `Protected::OpenParent`.
        if entry.is_checked {
            catalogs::refuse_relation(&entry)?;
            if check_entry(&entry)? == Kept::Rows {
                statements::refuse_explain(entry.relation)?;
            }
        }
    }
    Ok(())
}

/// What a relation keeps from those who use it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    Rows,
}

fn check_entry(entry: &Entry) -> Result<Kept, TenancyError> {
    if entry.relation.to_u32() < pg_sys::FirstNormalObjectId {
        return Ok(Kept::Nothing);
    }
    let Some(protected) = protected::find(entry.relation)? else { return Ok(Kept::Nothing) };
    if !protected.hides_rows() && !entry.writes {
        return Ok(Kept::Nothing);
    }
    match &*protected {
        Protected::Table(table) => {
            if !table.filters(entry.relation, entry.user()) {
                admit(entry, gap(entry))?;
            }
        }
        Protected::OpenParent if entry.with_children => admit(entry, Gap::Parent)?,
        Protected::OpenParent => return Ok(Kept::Nothing),
        Protected::MaterializedView => check_materialized_view(entry)?,
    }
    Ok(Kept::Rows)
}

/// Refuses TRUNCATE of a protected table, which row security has no say in, to whoever must not delete all of its rows.
/// The trigger that refuses it where there is no fence can be dropped.
pub fn refuse_truncate(relation: pg_sys::Oid) -> Result<(), TenancyError> {
    if passes() || relation.to_u32() < pg_sys::FirstNormalObjectId {
        return Ok(());
    }
    let Some(protected) = protected::find(relation)? else { return Ok(()) };
    // An unprotected parent has no rows of its own that are hidden, and its parts are asked about one by one.
    if !matches!(&*protected, Protected::Table(_)) {
        return Ok(());
    }
    if role::is_bound(relation) {
        return Err(TenancyError::TruncateBound { table: protected::name_of(relation), role: role::current_role() });
    }
    let check_as = pg_sys::InvalidOid;
    let entry = Entry { relation, is_checked: true, with_children: false, writes: true, check_as };
    admit(&entry, gap(&entry))
}

/// Row security never filters a materialized view; `tenancy.tenant_view` makes views that do.
fn check_materialized_view(entry: &Entry) -> Result<(), TenancyError> {
    if protected::is_read_through_tenant_view(entry.relation, entry.check_as)? {
        return Ok(());
    }
    match decide(entry)? {
        Ok(()) => Ok(()),
        Err(_) => {
            Err(TenancyError::FencedView { relation: protected::name_of(entry.relation), role: role::current_role() })
        }
    }
}

/// Why row security is not active for a relation.
fn gap(entry: &Entry) -> Gap {
    // SAFETY: variables of the backend.
    let (current, outer) = unsafe { (pg_sys::GetUserId(), pg_sys::GetOuterUserId()) };
    if nesting::is_under_way() {
        Gap::Cascade
    } else if entry.user() != current {
        Gap::View
    } else if current != outer {
        Gap::Function
    } else if role::bypasses_row_security() {
        Gap::Unbound
    } else if compat::class_row(entry.relation).is_some_and(|row| row.relrowsecurity) {
        Gap::Unforced
    } else {
        Gap::Off
    }
}

fn admit(entry: &Entry, gap: Gap) -> Result<(), TenancyError> {
    let relation = || protected::name_of(entry.relation);
    match decide(entry)? {
        Ok(()) => Ok(()),
        Err(Refusal::NotExempt) => {
            Err(TenancyError::Unfenced { relation: relation(), role: role::shown(entry.user()), gap })
        }
        Err(Refusal::SuperuserForTenant) => Err(TenancyError::FencedSuperuser {
            relation: relation(),
            tenant: guc::apparent_tenant().map_or_else(String::new, |key| key.to_string()),
        }),
    }
}

fn decide(entry: &Entry) -> Result<Result<(), Refusal>, TenancyError> {
    let Some(rules) = RULES.get() else { return Ok(Ok(())) };
    // SAFETY: variables of the backend.
    let (current, outer, session) =
        unsafe { (pg_sys::GetUserId(), pg_sys::GetOuterUserId(), pg_sys::GetSessionUserId()) };
    let access = Access {
        checked_as: standing(entry.user())?,
        current: standing(current)?,
        outer: standing(outer)?,
        session: standing(session)?,
        for_tenant: guc::apparent_tenant().is_some(),
        fences_superusers: settings::fence_superusers(),
    };
    Ok((rules.admit)(&access))
}

fn standing(role_oid: pg_sys::Oid) -> Result<Standing, TenancyError> {
    if role::is_superuser(role_oid) {
        return Ok(Standing::Superuser);
    }
    Ok(if exempt::is_exempt(role_oid)? { Standing::Exempt } else { Standing::Ordinary })
}
