//! Event triggers: what PostgreSQL passes them.

use super::{compat, spi, trigger};
use crate::error::TenancyError;
use crate::model::Ident;
use crate::model::context::Stamp;
use pgrx::{PgList, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, c_char};

/// A call of an event trigger function, as a door receives it.
pub type Call = pg_sys::FunctionCallInfo;

thread_local! {
    /// Protected tables from which the statement at hand dropped something, with the transaction of that statement.
    static DAMAGED: RefCell<(Stamp, Vec<pg_sys::Oid>)> = RefCell::default();
}

/// Remembers protected tables from which the statement at hand dropped something, until its end.
pub fn note_damaged(relations: Vec<pg_sys::Oid>) {
    let mut noted = take_damaged();
    noted.extend(relations);
    DAMAGED.set((transaction(), noted));
}

/// What was noted in this transaction; whatever an aborted one left is forgotten.
pub fn take_damaged() -> Vec<pg_sys::Oid> {
    let (stamp, noted) = DAMAGED.take();
    if stamp == transaction() { noted } else { Vec::new() }
}

fn transaction() -> Stamp {
    // SAFETY: an event trigger runs in a backend, which has its process entry.
    unsafe { compat::local_transaction_id(pg_sys::MyProc) }
}

/// Refuses a call by anybody but PostgreSQL after something was dropped.
pub fn expect_drop(call: Call) -> Result<(), TenancyError> {
    expect(call, c"sql_drop").map(drop)
}

/// What PostgreSQL passes to an event trigger; refuses a call by anybody else, and for another event.
fn expect(call: Call, event: &CStr) -> Result<*const pg_sys::EventTriggerData, TenancyError> {
    // SAFETY: a function's call information is valid while it runs; the node's tag tells whether the context is ours,
    // and an event's name is a C string.
    unsafe {
        let context = (*call).context;
        if !context.is_null() && (*context).type_ == pg_sys::NodeTag::T_EventTriggerData {
            let data = context.cast::<pg_sys::EventTriggerData>();
            if CStr::from_ptr((*data).event) == event {
                return Ok(data);
            }
        }
    }
    Err(TenancyError::TriggerProtocol {
        function: trigger::function(call),
        expected: format!("an event trigger on {}", event.to_string_lossy()),
        is_event_trigger: true,
    })
}

/// Whether the command at hand takes this extension along: DROP EXTENSION of it or of one it requires, or DROP OWNED BY
/// its owner. DROP SCHEMA cannot: the extension belongs to pg_catalog.
pub fn drops_this_extension(call: Call) -> Result<bool, TenancyError> {
    let data = expect(call, c"ddl_command_start")?;
    // SAFETY: checked above.
    let statement = unsafe { (*data).parsetree };
    if statement.is_null() {
        return Ok(false);
    }
    // SAFETY: the node's tag tells its type; the lists hold String and RoleSpec nodes by the grammar.
    Ok(unsafe {
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
    })
}

/// This extension and what its control file requires.
const NEEDED: [&CStr; 2] = [c"pg_tenancy", c"plpgsql"];

/// The statement at hand, as far as its text tells more than what it left behind.
#[derive(Debug, Default)]
pub struct Statement {
    pub kind: Kind,
    /// ALTER TABLE ... OWNER TO.
    pub changes_owner: bool,
    /// It may add a foreign key.
    pub adds_key: bool,
    /// ALTER ... RENAME COLUMN.
    pub renames_column: bool,
    /// Its old and new name.
    pub renamed_column: Option<(String, String)>,
    /// Columns that ALTER TABLE makes new values for: TYPE ... USING, SET EXPRESSION.
    pub retyped_columns: Vec<String>,
    /// Columns whose values ALTER TABLE casts: TYPE without USING.
    pub recast_columns: Vec<String>,
    /// CREATE [OR REPLACE] VIEW.
    pub defines_view: bool,
    /// A schema's old and new name.
    pub renamed_schema: Option<(Ident, Ident)>,
}

/// What a statement can do to tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that protection rests on.
    Harmless,
    /// It makes tables, or gives one another name or schema.
    BringsTables,
    /// It adds these columns.
    AddsColumns(Vec<String>),
    #[default]
    Other,
}

/// Commands that change nothing that protection rests on; any other is judged.
const HARMLESS: [&CStr; 22] = [
    c"ALTER DEFAULT PRIVILEGES",
    c"ALTER EXTENSION",
    c"ALTER INDEX",
    c"ALTER SEQUENCE",
    c"ALTER STATISTICS",
    c"COMMENT",
    c"CREATE AGGREGATE",
    c"CREATE CAST",
    c"CREATE COLLATION",
    c"CREATE DOMAIN",
    c"CREATE EXTENSION",
    c"CREATE INDEX",
    c"CREATE OPERATOR",
    c"CREATE OPERATOR CLASS",
    c"CREATE OPERATOR FAMILY",
    c"CREATE SEQUENCE",
    c"CREATE STATISTICS",
    c"CREATE TYPE",
    c"GRANT",
    c"REFRESH MATERIALIZED VIEW",
    c"REVOKE",
    c"SECURITY LABEL",
];

/// What the statement at its end is.
pub fn statement(call: Call) -> Result<Statement, TenancyError> {
    let data = expect(call, c"ddl_command_end")?;
    // SAFETY: checked above; a command's name is a constant of the server.
    let (tree, tag) = unsafe { ((*data).parsetree, CStr::from_ptr(pg_sys::GetCommandTagName((*data).tag))) };
    if tree.is_null() || HARMLESS.contains(&tag) {
        return Ok(Statement { kind: Kind::Harmless, ..Statement::default() });
    }
    let brings_tables = || Statement { kind: Kind::BringsTables, adds_key: true, ..Statement::default() };
    // SAFETY: the node's tag tells its type.
    unsafe {
        Ok(match (*tree).type_ {
            pg_sys::NodeTag::T_CreateStmt
            | pg_sys::NodeTag::T_CreateForeignTableStmt
            | pg_sys::NodeTag::T_CreateTableAsStmt
            | pg_sys::NodeTag::T_SelectStmt
            | pg_sys::NodeTag::T_CreateSchemaStmt
            | pg_sys::NodeTag::T_ImportForeignSchemaStmt
            | pg_sys::NodeTag::T_AlterObjectSchemaStmt => brings_tables(),
            pg_sys::NodeTag::T_RenameStmt => renaming(tree.cast())?,
            pg_sys::NodeTag::T_ViewStmt => Statement { defines_view: true, ..Statement::default() },
            pg_sys::NodeTag::T_AlterTableStmt => altering(tree.cast()),
            _ => Statement::default(),
        })
    }
}

/// # Safety
/// `tree` is an ALTER ... RENAME.
unsafe fn renaming(tree: *const pg_sys::RenameStmt) -> Result<Statement, TenancyError> {
    // SAFETY: the caller vouches for the node; the grammar fills in both names of a schema.
    unsafe {
        Ok(match (*tree).renameType {
            pg_sys::ObjectType::OBJECT_SCHEMA => {
                let name = |text: *const c_char| Ident::new(&CStr::from_ptr(text).to_string_lossy());
                let names = (name((*tree).subname)?, name((*tree).newname)?);
                Statement { renamed_schema: Some(names), ..Statement::default() }
            }
            pg_sys::ObjectType::OBJECT_COLUMN => {
                let name = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
                Statement {
                    kind: Kind::AddsColumns(vec![name((*tree).newname)]),
                    renames_column: true,
                    renamed_column: Some((name((*tree).subname), name((*tree).newname))),
                    ..Statement::default()
                }
            }
            _ => Statement { kind: Kind::BringsTables, ..Statement::default() },
        })
    }
}

/// # Safety
/// `tree` is an ALTER TABLE.
unsafe fn altering(tree: *const pg_sys::AlterTableStmt) -> Statement {
    let mut statement = Statement::default();
    let mut columns = Vec::new();
    // SAFETY: the caller vouches for the node; its list holds AlterTableCmd nodes, and one that adds a column or alters its
    // type a ColumnDef.
    unsafe {
        for command in PgList::<pg_sys::AlterTableCmd>::from_pg((*tree).cmds).iter_ptr() {
            match (*command).subtype {
                pg_sys::AlterTableType::AT_ChangeOwner => statement.changes_owner = true,
                pg_sys::AlterTableType::AT_AddColumn => {
                    statement.adds_key = true;
                    let column = (*command).def.cast::<pg_sys::ColumnDef>();
                    columns.push(CStr::from_ptr((*column).colname).to_string_lossy().into_owned());
                }
                pg_sys::AlterTableType::AT_AddConstraint => statement.adds_key = true,
                pg_sys::AlterTableType::AT_AlterColumnType => {
                    let column = (*command).def.cast::<pg_sys::ColumnDef>();
                    let is_cast = (*column).raw_default.is_null() && (*column).cooked_default.is_null();
                    let columns = if is_cast { &mut statement.recast_columns } else { &mut statement.retyped_columns };
                    columns.push(CStr::from_ptr((*command).name).to_string_lossy().into_owned());
                }
                #[cfg(any(feature = "pg17", feature = "pg18"))]
                pg_sys::AlterTableType::AT_SetExpression => {
                    statement.retyped_columns.push(CStr::from_ptr((*command).name).to_string_lossy().into_owned());
                }
                _ => {}
            }
        }
    }
    if !columns.is_empty() {
        statement.kind = Kind::AddsColumns(columns);
    }
    statement
}

/// Whether what has dropped something is an ALTER TABLE with actions.
pub fn alters_table(call: Call) -> Result<bool, TenancyError> {
    let data = expect(call, c"sql_drop")?;
    // SAFETY: checked above; a node's tag tells its type.
    Ok(unsafe { !(*data).parsetree.is_null() && (*(*data).parsetree).type_ == pg_sys::NodeTag::T_AlterTableStmt })
}

/// Whether an object of this catalog is a relation.
pub fn is_relation(class: pg_sys::Oid) -> bool {
    class == pg_sys::RelationRelationId
}

/// Whether guard and fence have no say: our own work, an extension's script, pg_upgrade, or a dump being restored.
pub fn is_out_of_reach() -> bool {
    // SAFETY: a plain variable of the backend.
    let scripting = unsafe { pg_sys::creating_extension };
    is_remaking() || scripting || spi::is_own_work()
}

/// Whether pg_upgrade or a dump that is being restored makes again what was, piece by piece: nothing is new.
pub fn is_remaking() -> bool {
    // SAFETY: a plain variable of the backend.
    unsafe { pg_sys::IsBinaryUpgrade || is_restoring() }
}

/// A dump announces itself by switching these two off, and only a superuser's word counts.
fn is_restoring() -> bool {
    // SAFETY: plain variables of the backend, and a look at the catalog.
    unsafe { !pg_sys::check_function_bodies && !pg_sys::row_security && pg_sys::superuser() }
}
