//! Every refusal of this extension: its SQLSTATE, message, detail and hint.
//!
//! Pure: `pg::report` turns a refusal into PostgreSQL's error.
#![forbid(unsafe_code)]

mod audit;
mod jobs;
mod rows;
#[cfg(test)]
mod tests;

pub use audit::AuditError;
pub use jobs::JobError;
pub use rows::RowsError;

use crate::model::fence::{Gap, Statement};
use crate::model::{Ident, InvalidSetting, KeyKind, QualifiedName, Status, Violation};
use std::fmt;

/// The SQLSTATEs in use (ARCHITECTURE, "SQLSTATEs").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the names are PostgreSQL's condition names")]
pub enum State {
    /// 55000
    NotInPrerequisiteState,
    /// 42501
    InsufficientPrivilege,
    /// 42704
    UndefinedObject,
    /// 42703
    UndefinedColumn,
    /// 22023
    InvalidParameterValue,
    /// 42710
    DuplicateObject,
    /// 42809
    WrongObjectType,
    /// 42804
    DatatypeMismatch,
    /// 23502
    NotNullViolation,
    /// 23503
    ForeignKeyViolation,
    /// 0A000
    FeatureNotSupported,
    /// 55006
    ObjectInUse,
    /// 25001
    ActiveSqlTransaction,
    /// 39P01
    TriggerProtocolViolated,
    /// 39P03
    EventTriggerProtocolViolated,
    /// XX000: a fault of our own, which no user can cause.
    InternalError,
}

/// What a user sees of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Face {
    pub state: State,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Face {
    fn new(state: State, message: impl Into<String>) -> Self {
        Self { state, message: message.into(), detail: None, hint: None }
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenancyError {
    // arguments
    MissingArgument { argument: &'static str },
    UnknownChoice { argument: &'static str, given: String, choices: &'static [&'static str] },
    NotAnObject { argument: &'static str },
    MalformedName { name: String },
    // registry
    MalformedTenant { text: String },
    MalformedCode { code: String },
    UnknownTenant { tenant: String },
    DuplicateTenant { key: &'static str, value: String },
    TenantDiffers { code: String, key: &'static str, stored: String, given: String },
    UnknownPlan { plan: String },
    IllegalStatusMove { tenant: String, from: Status, to: Status, hint: &'static str },
    NotDeleted { tenant: String, status: Status },
    Purged { tenant: String },
    ImmutableKeys { tenant: String },
    TenantRowKept { tenant: String },
    RegistryTruncated,
    UnknownRole { role: u32 },
    UnsafeRole { role: String, reason: String },
    // context
    NoTenant { ended: bool },
    StaleTenant { tenant: String },
    SecondTenant { first: String, second: String },
    PinnedTenant { pinned: String, second: String },
    DeferredForDefiner,
    DeferredUnderWay,
    RestoredTenant { now: String, sealed: String },
    ForbiddenSource { source: &'static str },
    UnreadablePin,
    InvalidSetting(InvalidSetting),
    TenantUnavailable { tenant: String, status: Status, reason: Option<String> },
    ReadOnlyTenant { tenant: String, reason: Option<String> },
    OtherTenant { expected: String, current: String },
    NotInstalled,
    // signed contexts
    UnsignedTenant { tenant: String },
    ForbiddenOptions,
    BoundRole { bound: String, second: String },
    ExpiredContext { tenant: String },
    MalformedToken { what: &'static str },
    UnknownTokenKey { kid: Option<String>, active: usize },
    RefusedToken { why: String, hint: &'static str },
    NoNonce,
    MalformedSigningKey { algorithm: &'static str, what: &'static str },
    MalformedKid,
    DuplicateSigningKey { kid: String },
    UnknownSigningKey { kid: String },
    NoKeyToSign { kid: Option<String> },
    TokenLifeTime { seconds: i64, most: i64 },
    RoleBoundElsewhere { role: String, tenant: String },
    RoleNotBound { role: String },
    StrangersFunction { function: String, rights: String },
    MutedTrigger { function: String },
    TableHasRule { table: QualifiedName, rule: Ident },
    // isolation
    UnknownRelation { oid: u32 },
    NotATable { relation: QualifiedName, kind: &'static str },
    SystemTable { relation: QualifiedName },
    TemporaryTable { relation: QualifiedName },
    IsPartition { relation: QualifiedName, parent: QualifiedName },
    SecondParent { relation: QualifiedName, parent: QualifiedName },
    NoTenantColumn { table: QualifiedName, column: Ident },
    WrongTenantType { table: QualifiedName, column: Ident, found: String },
    LooseCollation { table: QualifiedName, column: Ident },
    RowsWithoutTenant { table: QualifiedName, column: Ident, rows: i64 },
    RowsOfUnknownTenants { table: QualifiedName, column: Ident, rows: i64, sample: String, key: KeyKind },
    CrossTenantRows { constraint: Ident, table: QualifiedName, parent: QualifiedName, rows: i64 },
    ActionSetsTenant { table: QualifiedName, column: Ident, constraint: Ident, actions: String, instead: String },
    OtherProtection { table: QualifiedName, aspect: &'static str, stored: String, given: String },
    NotProtected { table: QualifiedName },
    NotOwner { table: QualifiedName, role: String },
    NotMember { role: String, wanted: String },
    ReservedName { table: QualifiedName, kind: &'static str, name: Ident },
    TruncateBound { table: String, role: String },
    UnknownSchema { schema: Ident },
    ArgumentConflict { message: &'static str, hint: &'static str },
    // guard
    TriggerProtocol { function: String, expected: String, is_event_trigger: bool },
    SchemaNotProtected { schema: Ident },
    ProtectionLost { table: QualifiedName, lost: Vec<String>, is_refused: bool },
    MemberUnprotected { table: QualifiedName, root: QualifiedName },
    NewTableUnprotected { table: QualifiedName, column: Ident },
    ForeignTableOpen { table: QualifiedName, column: Ident },
    OwnerUnbound { table: QualifiedName, owner: String, danger: String },
    RuleOnProtected { table: QualifiedName, rule: Ident },
    PolicyTrustsSetting { table: QualifiedName, policy: Ident },
    PolicyWidens { table: QualifiedName, policy: Ident },
    PolicyWithoutEffect { table: QualifiedName, policy: Ident },
    ViewUnbound { view: QualifiedName, owner: String, danger: String, sources: String },
    ViewOfCopies { view: QualifiedName, sources: String },
    MatviewUnbound { view: QualifiedName, sources: String },
    TenantViewAltered { view: QualifiedName },
    FunctionUnbound { function: String, owner: String, danger: String, sources: String },
    HelperReplaced { function: String },
    PublicationUnbound { publication: Ident, sources: String },
    NoCopyOfProtected { view: QualifiedName },
    NameTaken { relation: QualifiedName },
    // fence
    Unfenced { relation: String, role: String, gap: Gap },
    FencedSuperuser { relation: String, tenant: String },
    FencedView { relation: String, role: String },
    LostTenantColumn { relation: String, column: Ident },
    Denied { role: String, statement: Statement },
    LoopOfAnother { former: String, tenant: String },
    NoReason,
    PastEnd { role: String },
    NotExempt { role: String },
    SuperuserOnly { function: &'static str },
    // catalogs
    LockedDown { object: String, role: String, instead: Option<&'static str> },
    CannotLockDown { role: Ident, reason: &'static str, hint: &'static str },
    StillGranted { role: Ident, object: String, through: String },
    NotLockedDown { role: String },
    NoHooks,
    // folding
    MovedTenant,
    // keys
    UnknownKey { table: QualifiedName, key: Ident },
    PartOfKey { key: Ident, table: QualifiedName, parent: QualifiedName },
    UnfitKey { key: Ident, table: QualifiedName, reason: String, hint: &'static str },
    KeyInUse { key: Ident, table: QualifiedName, dependent: String },
    ReferredKey { key: Ident, constraint: Ident, child: QualifiedName, reason: String, hint: String },
    KeyNotScoped { key: Ident, table: QualifiedName },
    // audit
    Audit(AuditError),
    // lifecycle: stamps, deleted rows, retention
    Rows(RowsError),
    // jobs
    Job(JobError),
    // the seam
    Internal { what: String },
}

impl From<JobError> for TenancyError {
    fn from(refusal: JobError) -> Self {
        Self::Job(refusal)
    }
}

impl From<AuditError> for TenancyError {
    fn from(refusal: AuditError) -> Self {
        Self::Audit(refusal)
    }
}

impl From<RowsError> for TenancyError {
    fn from(refusal: RowsError) -> Self {
        Self::Rows(refusal)
    }
}

impl TenancyError {
    /// The refusal as the user reads it.
    pub fn face(&self) -> Face {
        use State::*;
        use TenancyError as E;
        match self {
            E::MissingArgument { argument } => {
                Face::new(InvalidParameterValue, format!("argument \"{argument}\" must not be null"))
                    .hint(format!("Give a value for \"{argument}\"."))
            }
            E::UnknownChoice { argument, given, choices } => {
                Face::new(InvalidParameterValue, format!("\"{}\" is not a value of \"{argument}\"", shortened(given)))
                    .hint(format!("Use one of: {}.", choices.join(", ")))
            }
            E::NotAnObject { argument } => {
                Face::new(InvalidParameterValue, format!("argument \"{argument}\" must be a JSON object"))
                    .hint("Give a value such as '{\"region\": \"eu\"}'.")
            }
            E::MalformedName { name } => Face::new(InvalidParameterValue, format!("\"{}\" cannot be a name", shortened(name)))
                .hint("A name has 1 to 63 bytes."),

            E::MalformedTenant { text } => {
                Face::new(InvalidParameterValue, format!("\"{}\" cannot name a tenant", shortened(text)))
                    .hint("Give a tenant's id (uuid), number (bigint) or code (text of at most 100 bytes).")
            }
            E::MalformedCode { code } => {
                Face::new(InvalidParameterValue, format!("\"{}\" cannot be a tenant code", shortened(code))).hint(
                    "A code has 1 to 100 bytes, no control characters and no outer white space, and is neither a number nor a UUID.",
                )
            }
            E::UnknownTenant { tenant } => Face::new(UndefinedObject, format!("tenant \"{tenant}\" does not exist"))
                .hint("Provision it with tenancy.create_tenant(...); tenancy.tenants lists those that exist."),
            E::DuplicateTenant { key, value } => {
                Face::new(DuplicateObject, format!("a tenant with {key} \"{value}\" already exists")).hint(match *key {
                    "code" => "Choose another code, or call tenancy.create_tenant(..., if_not_exists => true).",
                    _ => "Choose another value, or leave it out; tenancy.tenants shows whose it is.",
                })
            }
            E::TenantDiffers { code, key, stored, given } => {
                Face::new(DuplicateObject, format!("tenant \"{code}\" already exists with another {key}"))
                    .detail(format!("Its {key} is {stored}, the call says {given}."))
                    .hint("A tenant's keys never change; leave the argument out or give the stored value.")
            }
            E::UnknownPlan { plan } => Face::new(UndefinedObject, format!("plan \"{}\" does not exist", shortened(plan)))
                .hint("tenancy.plans lists the plans; insert a row there to add one."),
            E::IllegalStatusMove { tenant, from, to, hint } => Face::new(
                NotInPrerequisiteState,
                format!("tenant \"{tenant}\" is {} and cannot become {}", from.as_str(), to.as_str()),
            )
            .hint(*hint),
            E::Purged { tenant } => Face::new(NotInPrerequisiteState, format!("tenant \"{tenant}\" was purged"))
                .hint("Its rows are gone, or going; create a tenant with another code."),
            E::NotDeleted { tenant, status } => {
                Face::new(NotInPrerequisiteState, format!("tenant \"{tenant}\" is {}, not deleted", status.as_str()))
                    .hint("Call tenancy.resume_tenant(...) to make it active.")
            }
            E::ImmutableKeys { tenant } => {
                Face::new(InsufficientPrivilege, format!("the keys of tenant \"{tenant}\" cannot be changed"))
                    .hint("Rows refer to a tenant by its id, number and code; change its name with tenancy.update_tenant(...).")
            }
            E::TenantRowKept { tenant } => {
                Face::new(InsufficientPrivilege, format!("tenant \"{tenant}\" cannot be removed from tenancy.tenants"))
                    .hint("Call tenancy.delete_tenant(...); the row stays, so that its keys are never used again.")
            }
            E::RegistryTruncated => Face::new(InsufficientPrivilege, "tenancy.tenants cannot be truncated")
                .hint("Call tenancy.delete_tenant(...) for each tenant that is to go."),
            E::UnknownRole { role } => Face::new(UndefinedObject, format!("role with OID {role} does not exist"))
                .hint("Give the name of an existing role."),
            E::UnsafeRole { role, reason } => Face::new(
                InsufficientPrivilege,
                format!("role \"{role}\" must not be an application role"),
            )
            .detail(reason.clone())
            .hint("Give the application a login role of its own, without these attributes and memberships."),

            E::NoTenant { ended: false } => {
                Face::new(NotInPrerequisiteState, "no tenant is set for this transaction")
                    .hint("Call tenancy.set_tenant(...) at the start of the transaction.")
            }
            E::NoTenant { ended: true } => Face::new(NotInPrerequisiteState, "no tenant is set for this transaction")
                .detail("The tenant set earlier in this session ended with its transaction.")
                .hint("Open a transaction with BEGIN and call tenancy.set_tenant(...) in it."),
            E::StaleTenant { tenant } => {
                Face::new(NotInPrerequisiteState, format!("tenant \"{tenant}\" was set in an earlier transaction"))
                    .detail("A tenant is valid only in the transaction that set it.")
                    .hint("Open a transaction with BEGIN and call tenancy.set_tenant(...) or SET LOCAL app.current_tenant_id in it.")
            }
            E::SecondTenant { first, second } => Face::new(
                InsufficientPrivilege,
                format!("this transaction belongs to tenant \"{first}\" and cannot change to \"{second}\""),
            )
            .hint("End the transaction first; a role with EXECUTE on tenancy.switch_tenant may call that instead."),
            E::PinnedTenant { pinned, second } => Face::new(
                InsufficientPrivilege,
                format!("this connection is pinned to tenant \"{pinned}\" and cannot change to \"{second}\""),
            )
            .detail("ALTER ROLE or ALTER DATABASE ... SET app.current_tenant_id fixed the tenant of the connection.")
            .hint("Connect as another role; a role with EXECUTE on tenancy.switch_tenant may call that instead."),
            E::RestoredTenant { now, sealed } => Face::new(
                InsufficientPrivilege,
                format!("this transaction belongs to tenant \"{sealed}\", but a rollback put \"{now}\" back"),
            )
            .detail("A rolled-back savepoint, block or function restored the tenant that was set before it.")
            .hint("End the transaction, or call tenancy.switch_tenant(...) again where that is permitted."),
            E::DeferredForDefiner => Face::new(
                NotInPrerequisiteState,
                "triggers of the present tenant are deferred, and this SECURITY DEFINER function cannot run them",
            )
            .detail("They are to run before the tenant changes, and would get the rights of the function's owner.")
            .hint("Run SET CONSTRAINTS ALL IMMEDIATE before the statement that calls the function."),
            E::DeferredUnderWay => Face::new(
                NotInPrerequisiteState,
                "a deferred trigger cannot change the tenant of the transaction",
            )
            .detail("Other deferred triggers of the present tenant may wait for it to end.")
            .hint("Call tenancy.switch_tenant(...) outside of deferred triggers."),
            E::ForbiddenSource { source } => {
                Face::new(InsufficientPrivilege, format!("app.current_tenant_id cannot come from {source}"))
                    .hint("Set it in the transaction that uses it; only a superuser may store it, with ALTER ROLE or ALTER DATABASE ... SET.")
            }
            E::UnreadablePin => Face::new(
                InvalidParameterValue,
                "the tenant stored for the role or database of this connection cannot be read",
            )
            .hint("Correct it with ALTER ROLE or ALTER DATABASE ... SET app.current_tenant_id, then connect again."),
            E::InvalidSetting(invalid) => {
                let (name, value) = (&invalid.name, shortened(&invalid.value));
                let message = match invalid.wanted {
                    Some(_) => format!("setting {name} has the invalid value \"{value}\""),
                    None => format!("setting {name} does not exist, and its value \"{value}\" counts for nothing"),
                };
                let detail = format!("{} A session gets no tenant while nobody knows what was meant.", invalid.origin());
                Face::new(NotInPrerequisiteState, message).detail(detail).hint(invalid.remedy())
            }
            E::TenantUnavailable { tenant, status, reason } => {
                let face = Face::new(NotInPrerequisiteState, format!("tenant \"{tenant}\" is {}", status.as_str()));
                let face = match reason {
                    Some(reason) => face.detail(format!("Reason: {reason}")),
                    None => face,
                };
                face.hint(match status {
                    Status::Deleted => "An administrator can bring it back with tenancy.undelete_tenant(...).",
                    _ => "An administrator can bring it back with tenancy.resume_tenant(...).",
                })
            }
            E::ReadOnlyTenant { tenant, reason } => {
                let face = Face::new(NotInPrerequisiteState, format!("tenant \"{tenant}\" is read-only"));
                let face = match reason {
                    Some(reason) => face.detail(format!("Reason: {reason}")),
                    None => face,
                };
                face.hint("An administrator can permit writes again with tenancy.resume_tenant(...).")
            }
            E::OtherTenant { expected, current } => Face::new(
                InsufficientPrivilege,
                format!("this transaction belongs to tenant \"{current}\", not to \"{expected}\""),
            )
            .hint("Do this in a transaction of the tenant it is for."),
            E::NotInstalled => Face::new(UndefinedObject, "extension pg_tenancy is not installed in this database")
                .hint("Run CREATE EXTENSION pg_tenancy."),

            E::UnsignedTenant { tenant } => {
                Face::new(InsufficientPrivilege, format!("tenant \"{}\" must come from a signed token", shortened(tenant)))
                    .detail("The setting tenancy.context_mode is signed.")
                    .hint("Call tenancy.set_tenant_signed(...) with a token from the application's signer.")
            }
            E::ForbiddenOptions => {
                Face::new(InsufficientPrivilege, "settings of schema tenancy cannot come from connection options")
                    .detail("They hide what is stored for the role, the database and the server.")
                    .hint("Connect without them; a superuser sets them with ALTER ROLE or ALTER DATABASE ... SET.")
            }
            E::BoundRole { bound, second } => Face::new(
                InsufficientPrivilege,
                format!("the role of this session is bound to tenant \"{bound}\" and cannot become \"{second}\""),
            )
            .hint("Connect as another role; a superuser can take the binding off with tenancy.unbind_role(...)."),
            E::ExpiredContext { tenant } => {
                Face::new(NotInPrerequisiteState, format!("the token that set tenant \"{tenant}\" has expired"))
                    .hint("Call tenancy.set_tenant_signed(...) with a new token.")
            }
            E::MalformedToken { what } => Face::new(InvalidParameterValue, "the token cannot be read")
                .detail(*what)
                .hint("Give a JSON Web Token in compact form: header.payload.signature, each in base64url."),
            E::UnknownTokenKey { kid: Some(kid), .. } => {
                Face::new(InsufficientPrivilege, format!("no active signing key is named \"{}\"", shortened(kid)))
                    .hint("tenancy.signing_keys lists the keys; the kid in the token's header must be one that is not retired.")
            }
            E::UnknownTokenKey { kid: None, active: 0 } => {
                Face::new(InsufficientPrivilege, "there is no active signing key")
                    .hint("A superuser adds one with tenancy.add_signing_key(...).")
            }
            E::UnknownTokenKey { kid: None, active } => {
                Face::new(InsufficientPrivilege, format!("the token does not say which of {active} signing keys it is for"))
                    .hint("Let the signer put the key's kid into the token's header.")
            }
            E::RefusedToken { why, hint } => {
                Face::new(InsufficientPrivilege, format!("the token is refused: {why}")).hint(*hint)
            }
            E::NoNonce => Face::new(InsufficientPrivilege, "the token is refused: it has no nonce")
                .detail("The setting tenancy.token_nonce is required.")
                .hint("Have the token signed with the answer of tenancy.session_nonce() on this connection."),
            E::MalformedSigningKey { algorithm, what } => {
                let face = Face::new(InvalidParameterValue, format!("the key cannot be used for {algorithm}")).detail(*what);
                face.hint(match *algorithm {
                    "HS256" => "Give a secret of at least 32 bytes: as text, as base64:..., or as a JWK with kty oct.",
                    "EdDSA" => "Give an Ed25519 key as PEM (PUBLIC KEY or PRIVATE KEY), or as a JWK with kty OKP.",
                    _ => "Give a P-256 key as PEM (PUBLIC KEY, PRIVATE KEY or EC PRIVATE KEY), or as a JWK with kty EC.",
                })
            }
            E::MalformedKid => Face::new(InvalidParameterValue, "this cannot be the name of a signing key")
                .hint("Give 1 to 100 bytes without control characters, such as '2026-11'."),
            E::DuplicateSigningKey { kid } => {
                Face::new(DuplicateObject, format!("there is or was a signing key \"{}\" already", shortened(kid)))
                    .hint("Choose a new kid for a new key, so that no token of another one is taken for its own.")
            }
            E::UnknownSigningKey { kid } => {
                Face::new(UndefinedObject, format!("no active signing key is named \"{}\"", shortened(kid)))
                    .hint("tenancy.signing_keys lists the keys.")
            }
            E::NoKeyToSign { kid: Some(kid) } => {
                Face::new(NotInPrerequisiteState, format!("signing key \"{}\" has no private part", shortened(kid)))
                    .hint("Sign where the private key is, or name another key.")
            }
            E::NoKeyToSign { kid: None } => Face::new(NotInPrerequisiteState, "no active signing key can sign")
                .hint("Add an HS256 secret or a private key with tenancy.add_signing_key(...)."),
            E::TokenLifeTime { seconds, most } => {
                Face::new(InvalidParameterValue, format!("a token cannot be valid for {seconds} seconds"))
                    .detail(match most {
                        0 => "It must be at least one second.".to_owned(),
                        _ => format!("The setting tenancy.token_max_ttl allows 1 to {most} seconds."),
                    })
                    .hint("Give a life time such as interval '5 minutes'.")
            }
            E::RoleBoundElsewhere { role, tenant } => {
                Face::new(DuplicateObject, format!("role \"{role}\" is already bound to tenant \"{tenant}\""))
                    .hint("Call tenancy.unbind_role(...) first.")
            }
            E::RoleNotBound { role } => Face::new(UndefinedObject, format!("role \"{role}\" is bound to no tenant"))
                .hint("tenancy.role_bindings lists the roles that are."),

            E::StrangersFunction { function, rights } => {
                Face::new(InsufficientPrivilege, format!("function {function} would run with the rights of {rights}"))
                    .detail("An index, a cast, a domain or a trigger of the table calls it, and its owner is no superuser.")
                    .hint("Drop what calls it, or have a superuser look at it and own it: ALTER FUNCTION ... OWNER TO ...")
            }
            E::MutedTrigger { function } => {
                Face::new(NotInPrerequisiteState, format!("trigger function {function} would run for a row of a partition"))
                    .detail("No trigger of users' tables fires in this work, and this one cannot be left out.")
                    .hint("Drop the trigger, or disable it with ALTER TABLE ... DISABLE TRIGGER, and call the same again.")
            }
            E::TableHasRule { table, rule } => {
                Face::new(NotInPrerequisiteState, format!("table {table} has rewrite rule {rule}"))
                    .detail("What the rule does would be done with the rights of the table's owner, for all tenants.")
                    .hint("Drop the rule, and call the same again.")
            }
            E::UnknownRelation { oid } => Face::new(UndefinedObject, format!("relation with OID {oid} does not exist"))
                .hint("Give the name of an existing table."),
            E::NotATable { relation, kind } => {
                Face::new(WrongObjectType, format!("{relation} is a {kind}, not a table")).hint(match *kind {
                    "foreign table" => "Row security does not reach a foreign table; keep it from application roles, and detach it from a table that is to be protected.",
                    _ => "Protect the tables it reads; a view then needs WITH (security_invoker = true).",
                })
            }
            E::SystemTable { relation } => Face::new(WrongObjectType, format!("{relation} belongs to the system or to an extension"))
                .hint("Only tables of your own can be protected."),
            E::TemporaryTable { relation } => Face::new(WrongObjectType, format!("{relation} is a temporary table"))
                .hint("A temporary table belongs to one session already; protect a permanent one."),
            E::IsPartition { relation, parent } => Face::new(WrongObjectType, format!("{relation} is a partition or child of {parent}"))
                .hint(format!("Call tenancy.protect_table on {parent}; its partitions and children are protected with it.")),
            E::SecondParent { relation, parent } => {
                Face::new(WrongObjectType, format!("{relation} is also a child of {parent}"))
                    .detail("Its rows can be read through that table, past its own policies.")
                    .hint(format!("Run ALTER TABLE {relation} NO INHERIT {parent} first."))
            }
            E::NoTenantColumn { table, column } => {
                Face::new(UndefinedColumn, format!("table {table} has no column {column}"))
                    .hint("Name the tenant column with tenant_column => '...', or give assign_existing_rows_to => '<tenant>' to have it added.")
            }
            E::WrongTenantType { table, column, found } => Face::new(
                DatatypeMismatch,
                format!("column {column} of {table} is of type {found}, which holds no tenant key"),
            )
            .hint("A tenant column is uuid (a tenant's id), integer or bigint (its number), or text or varchar (its code)."),
            E::LooseCollation { table, column } => Face::new(
                FeatureNotSupported,
                format!("column {column} of {table} has a nondeterministic collation"),
            )
            .detail("Codes of two tenants could compare as equal.")
            .hint("Change the column to a deterministic collation first."),
            E::RowsWithoutTenant { table, column, rows } => {
                Face::new(NotNullViolation, format!("table {table} has {} without a tenant in {column}", counted(*rows)))
                    .hint("Give them one with assign_existing_rows_to => '<tenant>', or protect the table with access => 'shared'.")
            }
            E::RowsOfUnknownTenants { table, column, rows, sample, key } => {
                let call = match key {
                    KeyKind::Id => "tenancy.create_tenant(code, id => ...)",
                    KeyKind::Number => "tenancy.create_tenant(code, number => ...)",
                    KeyKind::Code => "tenancy.create_tenant(code)",
                };
                Face::new(ForeignKeyViolation, format!("table {table} has {} of tenants that do not exist", counted(*rows)))
                    .detail(format!("Values of {column} without a tenant: {sample}"))
                    .hint(format!("Provision them with {call} or correct the rows."))
            }
            E::CrossTenantRows { constraint, table, parent, rows } => Face::new(
                ForeignKeyViolation,
                format!("table {table} has {} with a reference to another tenant's row in {parent}", counted(*rows)),
            )
            .detail(format!("Foreign key {constraint}."))
            .hint("Correct these rows, or call with foreign_keys => 'keep' and correct them later."),
            E::ActionSetsTenant { table, column, constraint, actions, instead } => Face::new(
                FeatureNotSupported,
                format!("{actions} of foreign key {constraint} would set the tenant column {column} of table {table}"),
            )
            .detail("Actions of foreign keys run past row security: a row could become that of another tenant, or of all.")
            .hint(format!(
                "Write it as {instead}; where it is there already: ALTER TABLE {table} DROP CONSTRAINT IF EXISTS \
                 {constraint}, ADD CONSTRAINT {constraint} {instead}."
            )),
            E::OtherProtection { table, aspect, stored, given } => {
                let hint = match *aspect {
                    "tenant column" => format!(
                        "Name it with tenant_column => '{stored}', or call tenancy.unprotect_table(...) to choose another."
                    ),
                    _ => "Call tenancy.unprotect_table(...) first.".to_owned(),
                };
                Face::new(DuplicateObject, format!("table {table} is already protected with another {aspect}"))
                    .detail(format!("Its {aspect} is {stored}, the call says {given}."))
                    .hint(hint)
            }
            E::NotProtected { table } => Face::new(UndefinedObject, format!("table {table} is not protected"))
                .hint("tenancy.protected_tables lists those that are; for a partition or child call with its parent."),
            E::NotMember { role, wanted } => {
                Face::new(InsufficientPrivilege, format!("role \"{role}\" cannot become role \"{wanted}\""))
                    .hint("Make it a member of that role, or ask as a superuser.")
            }
            E::NotOwner { table, role } => Face::new(InsufficientPrivilege, format!("role \"{role}\" does not own table {table}"))
                .hint("Call as the owner of the table or as a superuser."),
            E::ReservedName { table, kind, name } => {
                Face::new(DuplicateObject, format!("table {table} has a {kind} {name} of another making"))
                    .hint("Rename it, or drop it: protection needs this name for its own.")
            }
            E::TruncateBound { table, role } => {
                Face::new(InsufficientPrivilege, format!("role \"{role}\" cannot truncate protected table {table}"))
                    .detail("TRUNCATE would remove the rows of every tenant.")
                    .hint("Use DELETE, which removes only the current tenant's rows.")
            }
            E::UnknownSchema { schema } => Face::new(UndefinedObject, format!("schema {schema} does not exist"))
                .hint("Give the name of an existing schema."),
            E::ArgumentConflict { message, hint } => Face::new(InvalidParameterValue, *message).hint(*hint),

            E::TriggerProtocol { function, expected, is_event_trigger } => {
                let state = if *is_event_trigger { EventTriggerProtocolViolated } else { TriggerProtocolViolated };
                Face::new(state, format!("function \"{function}\" was not called as {expected}"))
                    .hint("Drop the trigger or the call: the extension makes the triggers that call this function.")
            }
            E::SchemaNotProtected { schema } => {
                Face::new(UndefinedObject, format!("new tables of schema {schema} are not protected"))
                    .hint("tenancy.protected_schemas lists the schemas whose new tables are.")
            }
            E::ProtectionLost { table, lost, is_refused: true } => {
                Face::new(InsufficientPrivilege, format!("table {table} must stay protected as it is"))
                    .detail(format!("The statement would alter or remove {}.", lost.join(", ")))
                    .hint(format!(
                        "An administrator may do this, or take protection off with tenancy.unprotect_table({}) first.",
                        quoted(table)
                    ))
            }
            E::ProtectionLost { table, lost, is_refused: false } => {
                Face::new(InsufficientPrivilege, format!("table {table} is no longer protected as it was"))
                    .detail(format!("The statement altered or removed {}.", lost.join(", ")))
                    .hint(format!(
                        "Call tenancy.protect_table({}), with the other arguments it was protected with, to put this right.",
                        quoted(table)
                    ))
            }
            E::MemberUnprotected { table, root } => {
                Face::new(NotInPrerequisiteState, format!("table {table} is not protected yet as {root} is"))
                    .hint(format!("Call tenancy.protect_table({}) again.", quoted(root)))
            }
            E::NewTableUnprotected { table, column } => Face::new(
                NotInPrerequisiteState,
                format!("table {table} has the tenant column {column} but is not protected"),
            )
            .hint(format!(
                "Call tenancy.protect_table({}), or tenancy.protect_schema(...) for all tables to come.",
                quoted(table)
            )),
            E::ForeignTableOpen { table, column } => Face::new(
                InsufficientPrivilege,
                format!("foreign table {table} has the tenant column {column} and no row security"),
            )
            .detail("Row security does not reach a foreign table: whoever may read it reads the rows of every tenant.")
            .hint("Grant nothing on it to application roles."),
            E::OwnerUnbound { table, owner, danger } => {
                Face::new(InsufficientPrivilege, format!("role \"{owner}\" should not own protected table {table}"))
                    .detail(format!("Role \"{owner}\" {danger}."))
                    .hint("Give the table to a role that neither runs the application nor bypasses row security.")
            }
            E::RuleOnProtected { table, rule } => Face::new(
                InsufficientPrivilege,
                format!("rule {rule} on protected table {table} can lead rows past its policies"),
            )
            .hint("Use a trigger: it sees the rows that the policies let through."),
            E::PolicyTrustsSetting { table, policy } => Face::new(
                InsufficientPrivilege,
                format!("policy {policy} on protected table {table} trusts a setting that any role can change"),
            )
            .detail(HOLDS_BESIDES)
            .hint("Write it AS RESTRICTIVE, which can only narrow what a tenant sees, or let an administrator create it."),
            E::PolicyWidens { table, policy } => Face::new(
                InsufficientPrivilege,
                format!("policy {policy} on protected table {table} offers rows beside the tenant's own"),
            )
            .detail(HOLDS_BESIDES)
            .hint("Leave the tenant out of it; for rows that all tenants read protect the table with access => 'shared'."),
            E::PolicyWithoutEffect { table, policy } => Face::new(
                NotInPrerequisiteState,
                format!("policy {policy} on protected table {table} has no effect beside tenancy_open"),
            )
            .detail("Permissive policies add to each other, and tenancy_open admits all of the tenant's rows.")
            .hint(format!(
                "Write it AS RESTRICTIVE, or call tenancy.protect_table({}) again, which then removes tenancy_open.",
                quoted(table)
            )),
            E::ViewUnbound { view, owner, danger, sources } => {
                Face::new(InsufficientPrivilege, format!("view {view} shows the rows of every tenant"))
                    .detail(format!("It reads {sources} as its owner: role \"{owner}\" {danger}."))
                    .hint(format!(
                        "Run ALTER VIEW {view} SET (security_invoker = true) (PostgreSQL 15), or give it to an owner whom row security binds."
                    ))
            }
            E::ViewOfCopies { view, sources } => Face::new(
                InsufficientPrivilege,
                format!("view {view} shows rows of every tenant from a materialized view"),
            )
            .detail(format!("The materialized view is filled from {sources}."))
            .hint("Read it through a view that tenancy.tenant_view(...) makes."),
            E::MatviewUnbound { view, sources } => Face::new(
                InsufficientPrivilege,
                format!("materialized view {view} keeps rows of protected tables without row security"),
            )
            .detail(format!("It is filled from {sources}."))
            .hint(format!(
                "An administrator may create it, and let applications read what tenancy.tenant_view({}) makes of it.",
                quoted(view)
            )),
            E::TenantViewAltered { view } => Face::new(
                InsufficientPrivilege,
                format!("view {view} was made by tenancy.tenant_view and must stay as it is"),
            )
            .hint("Drop it, and call tenancy.tenant_view(...) again."),
            E::FunctionUnbound { function, owner, danger, sources } => {
                Face::new(InsufficientPrivilege, format!("function {function} reads protected tables past row security"))
                    .detail(format!("It names {sources} and runs as its owner: role \"{owner}\" {danger}."))
                    .hint("Make it SECURITY INVOKER, or give it to an owner whom row security binds.")
            }
            E::HelperReplaced { function } => {
                Face::new(InsufficientPrivilege, format!("function {function} is part of pg_tenancy and was altered"))
                    .hint("Isolation rests on it: put the extension's own version back.")
            }
            E::PublicationUnbound { publication, sources } => Face::new(
                InsufficientPrivilege,
                format!("publication {publication} sends the rows of every tenant"),
            )
            .detail(format!("It has {sources}, and replication knows no row security."))
            .hint("An administrator may publish them; a row filter on the tenant column (PostgreSQL 15) narrows it to one tenant."),
            E::NoCopyOfProtected { view } => {
                Face::new(WrongObjectType, format!("{view} is no materialized view of protected tables"))
                    .hint("Give the name of a materialized view that reads a protected table.")
            }
            E::NameTaken { relation } => Face::new(DuplicateObject, format!("relation {relation} already exists"))
                .hint("Drop or rename it: this name is needed."),

            E::Unfenced { relation, role, gap } => {
                let (detail, hint) = match gap {
                    Gap::Off => ("Row security of the table is switched off.", PROTECT),
                    Gap::Unforced => ("The role owns the table, and its row security is not forced.", PROTECT),
                    Gap::Unbound => (
                        "Row security never filters a superuser or a role with BYPASSRLS.",
                        "Use a role that row security binds, or have a superuser call tenancy.exempt_role(role, reason).",
                    ),
                    Gap::View => (
                        "The view reads with the rights of its owner, whom row security does not bind.",
                        "Run ALTER VIEW ... SET (security_invoker = true), or give the view to a role that row security binds.",
                    ),
                    Gap::Function => (
                        "The SECURITY DEFINER function runs as its owner, whom row security does not bind.",
                        "Make it SECURITY INVOKER, or give it to a role that row security binds.",
                    ),
                    Gap::Parent => (
                        "It is not protected itself, and would show the rows of protected partitions or children.",
                        "Name those, or have the owner protect the parent with tenancy.protect_table(...).",
                    ),
                    Gap::Cascade => (
                        "It runs inside of a foreign key's own action, for which PostgreSQL lifts row security from the owner.",
                        "Do this in an AFTER trigger.",
                    ),
                };
                let message = match gap {
                    Gap::Parent => format!("role \"{role}\" must not use the children of {relation} past their row security"),
                    _ => format!("role \"{role}\" must not use protected table {relation} past its row security"),
                };
                Face::new(InsufficientPrivilege, message).detail(detail).hint(hint)
            }
            E::FencedSuperuser { relation, tenant } => Face::new(
                InsufficientPrivilege,
                format!("a superuser must not use protected table {relation} for tenant \"{tenant}\""),
            )
            .detail("Row security never filters a superuser: the rows of all tenants would be used.")
            .hint("SET ROLE to a role that row security binds, or work in a transaction without a tenant."),
            E::FencedView { relation, role } => Face::new(
                InsufficientPrivilege,
                format!("role \"{role}\" must not read materialized view {relation}"),
            )
            .detail("It holds rows of protected tables, and a materialized view has no row security.")
            .hint("Read it through a view that tenancy.tenant_view(...) makes."),
            E::LostTenantColumn { relation, column } => Face::new(
                NotInPrerequisiteState,
                format!("protected table {relation} has lost its tenant column {column}"),
            )
            .hint("Call tenancy.unprotect_table(...) and protect it again by the column it has now."),
            E::Denied { role, statement } => denied(role, statement),
            E::LoopOfAnother { former, tenant } => Face::new(
                InsufficientPrivilege,
                format!("a loop over rows of tenant \"{former}\" goes on in a transaction of tenant \"{tenant}\""),
            )
            .detail("The server keeps the rows that a FOR loop has still to give when its transaction ends.")
            .hint("Leave the loop before the tenant changes: loop over the tenants outside, and over their rows inside."),
            E::NoReason => Face::new(InvalidParameterValue, "an exemption needs a reason")
                .hint("Say what the role is for, such as 'nightly pg_dump'."),
            E::PastEnd { role } => {
                Face::new(InvalidParameterValue, format!("the exemption of role \"{role}\" would be over already"))
                    .hint("Give a time to come, or leave \"until\" out for no end.")
            }
            E::NotExempt { role } => Face::new(UndefinedObject, format!("role \"{role}\" is not exempt"))
                .hint("tenancy.exempt_roles lists those that are."),
            E::SuperuserOnly { function } => {
                Face::new(InsufficientPrivilege, format!("only a superuser may call tenancy.{function}"))
                    .hint("It decides who gets past isolation; ask a superuser.")
            }

            E::LockedDown { object, role, instead } => {
                let face = Face::new(InsufficientPrivilege, format!("role \"{role}\" must not use {object}"))
                    .detail("It shows or reaches what other sessions do, and the role's catalogs are locked down.");
                face.hint(match instead {
                    Some(view) => format!("Read tenancy.{view}, which shows the session's own part."),
                    None => "Ask as a member of pg_monitor; tenancy.unlock_catalogs(...) gives it back to the role.".to_owned(),
                })
            }
            E::CannotLockDown { role, reason, hint } => {
                Face::new(InsufficientPrivilege, format!("the catalogs of role {role} cannot be locked down"))
                    .detail(*reason)
                    .hint(*hint)
            }
            E::StillGranted { role, object, through } => {
                Face::new(InsufficientPrivilege, format!("role {role} would still reach {object}"))
                    .detail(format!("Role \"{through}\" has been granted it, and {role} has or can take on its rights."))
                    .hint("Revoke that grant or the membership first, or use the library in shared_preload_libraries and method => 'hooks'.")
            }
            E::NotLockedDown { role } => {
                Face::new(UndefinedObject, format!("the catalogs of role \"{role}\" are not locked down"))
                    .hint("tenancy.locked_down_roles lists the roles whose catalogs are.")
            }
            E::NoHooks => Face::new(NotInPrerequisiteState, "there are no hooks to lock catalogs down with")
                .hint("Add pg_tenancy to shared_preload_libraries and restart, or call with method => 'grants'."),
            E::MovedTenant => {
                Face::new(NotInPrerequisiteState, "the tenant changed while a query on its rows was planned")
                    .hint("Declare the function that calls tenancy.switch_tenant VOLATILE, as it must be.")
            }

            E::UnknownKey { table, key } => {
                Face::new(UndefinedObject, format!("table {table} has no unique key {key}"))
                    .hint("Give the name of a UNIQUE, PRIMARY KEY or EXCLUDE constraint, or of a unique index, as \\d shows it.")
            }
            E::PartOfKey { key, table, parent } => {
                Face::new(WrongObjectType, format!("key {key} of {table} is a part of a key of {parent}"))
                    .hint(format!("Call with {parent} and the name that the key has there; those of its partitions follow."))
            }
            E::UnfitKey { key, table, reason, hint } => {
                Face::new(FeatureNotSupported, format!("key {key} of {table} cannot be led by the tenant column"))
                    .detail(reason.clone())
                    .hint(*hint)
            }
            E::KeyInUse { key, table, dependent } => {
                Face::new(NotInPrerequisiteState, format!("key {key} of {table} cannot be replaced while {dependent} depends on it"))
                    .hint("Drop that object, or write it so that it does not need this key, and call again; then put it back.")
            }
            E::ReferredKey { key, constraint, child, reason, hint } => Face::new(
                NotInPrerequisiteState,
                format!("foreign key {constraint} of {child} refers to key {key} without the tenant"),
            )
            .detail(reason.clone())
            .hint(hint.clone()),
            E::KeyNotScoped { key, table } => {
                Face::new(UndefinedObject, format!("key {key} of {table} is not as tenancy.scope_unique left it"))
                    .hint("Only a key that tenancy.scope_unique has led by the tenant column can be put back.")
            }

            E::Audit(refusal) => refusal.face(),
            E::Rows(refusal) => refusal.face(),
            E::Job(refusal) => refusal.face(),
            E::Internal { what } => Face::new(InternalError, what.clone())
                .hint("This should not happen; please report it with the statement that was run."),
        }
    }
}

impl TenancyError {
    /// The kind of violation it is counted as, where it is one.
    pub fn violation(&self) -> Option<Violation> {
        use TenancyError as E;
        match self {
            E::NoTenant { .. } | E::StaleTenant { .. } | E::ExpiredContext { .. } => Some(Violation::MissingContext),
            E::ForbiddenSource { .. } | E::UnreadablePin | E::InvalidSetting(_) | E::TenantUnavailable { .. } => {
                Some(Violation::RefusedContext)
            }
            E::UnsignedTenant { .. } | E::MalformedToken { .. } | E::UnknownTokenKey { .. } | E::NoNonce => {
                Some(Violation::RefusedContext)
            }
            E::RefusedToken { .. } | E::ForbiddenOptions => Some(Violation::RefusedContext),
            E::SecondTenant { .. } | E::PinnedTenant { .. } | E::RestoredTenant { .. } | E::OtherTenant { .. } => {
                Some(Violation::SecondTenant)
            }
            E::BoundRole { .. } => Some(Violation::SecondTenant),
            E::TruncateBound { .. }
            | E::Unfenced { .. }
            | E::FencedSuperuser { .. }
            | E::FencedView { .. }
            | E::Denied { .. }
            | E::LoopOfAnother { .. }
            | E::LockedDown { .. } => Some(Violation::Fence),
            E::ProtectionLost { is_refused: true, .. }
            | E::OwnerUnbound { .. }
            | E::RuleOnProtected { .. }
            | E::PolicyTrustsSetting { .. }
            | E::PolicyWidens { .. }
            | E::ViewUnbound { .. }
            | E::ViewOfCopies { .. }
            | E::MatviewUnbound { .. }
            | E::TenantViewAltered { .. }
            | E::FunctionUnbound { .. }
            | E::PublicationUnbound { .. }
            | E::Audit(AuditError::AuditLost { is_refused: true, .. }) => Some(Violation::Ddl),
            _ => None,
        }
    }
}

/// A statement that row security has nothing to say about, as the role that may not run it reads of it.
fn denied(role: &str, statement: &Statement) -> Face {
    const STRICT: &str = "Do without it, or have a superuser choose tenancy.strictness = standard for the role.";
    const HYGIENE: &str = "Do without it, or have a superuser choose another tenancy.session_hygiene for the role.";
    let (what, detail, hint) = match statement {
        Statement::Explain { relation, analyzes: true } => (
            format!("EXPLAIN ANALYZE protected table {relation}"),
            "It counts the rows of other tenants.",
            "Have an administrator run it, or a superuser choose another tenancy.explain_guard for the role.",
        ),
        Statement::Explain { relation, analyzes: false } => (
            format!("EXPLAIN a query of protected table {relation}"),
            "Estimates are made from the rows of all tenants.",
            "Have an administrator run it, or a superuser choose another tenancy.explain_guard for the role.",
        ),
        Statement::Lock { relation } => (
            format!("lock protected table {relation}"),
            "The lock would stop every other tenant.",
            "Lock rows with SELECT ... FOR UPDATE.",
        ),
        Statement::Listen => ("LISTEN".to_owned(), "Notifications reach every listener of the database.", STRICT),
        Statement::Notify => ("NOTIFY".to_owned(), "Notifications reach every listener of the database.", STRICT),
        Statement::Trigger { relation } => (
            format!("create a trigger on protected table {relation}"),
            "A trigger sees the rows that every tenant writes.",
            "Have the owner of the table create it.",
        ),
        Statement::HeldCursor => (
            "declare a cursor WITH HOLD".to_owned(),
            "It keeps rows of its tenant for whoever uses the connection next.",
            HYGIENE,
        ),
        Statement::TemporaryTable => (
            "make a temporary table that outlives its transaction".to_owned(),
            "It keeps rows of its tenant for whoever uses the connection next.",
            "Make it with ON COMMIT DROP.",
        ),
        Statement::Function { name } => (format!("call {name}"), "All tenants meet in what it reaches.", STRICT),
        Statement::Unpin => (
            "reset a tenant that a superuser has stored".to_owned(),
            "ALTER ROLE or ALTER DATABASE ... SET app.current_tenant_id fixes the tenant of connections.",
            "Name single settings other than this one, or ask a superuser.",
        ),
        Statement::Leftover { what } => (
            format!("use {what} of an earlier transaction"),
            "It was made for another tenant on this connection.",
            "Set the tenant that it belongs to, or make it anew.",
        ),
    };
    Face::new(State::InsufficientPrivilege, format!("role \"{role}\" must not {what}")).detail(detail).hint(hint)
}

const PROTECT: &str = "Have the owner or an administrator call tenancy.protect_table(...), which puts it back.";

const HOLDS_BESIDES: &str =
    "It shows no other tenant's rows, for the restrictive policy tenancy_isolation holds besides.";

/// A name as a string constant, to be copied into a call.
fn quoted(name: &QualifiedName) -> String {
    format!("'{}'", name.to_string().replace('\'', "''"))
}

/// A text that came from outside, cut to what a log line can bear.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn counted(rows: i64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

impl fmt::Display for TenancyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.face().message)
    }
}

impl std::error::Error for TenancyError {}
