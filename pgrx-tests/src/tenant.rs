//! Tenants, and a client that works as one of them.

use postgres::{Error, Row, error::DbError, types::ToSql};

use crate::{
    db::{Db, Role},
    names::{quote_ident, quote_literal},
    session::{Session, describe, refusal, same_rows},
};

/// A provisioned tenant: its three keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub id: uuid::Uuid,
    pub number: i64,
    pub code: String,
}

impl Db {
    /// Provisions a tenant.
    #[track_caller]
    pub fn tenant(&self, code: &str) -> Tenant {
        let admin = self.admin();
        admin.query("SELECT tenancy.create_tenant($1)", &[&code]);
        let rows = admin.query("SELECT id, number, code FROM tenancy.tenants WHERE code = $1", &[&code]);
        Tenant { id: rows[0].get(0), number: rows[0].get(1), code: rows[0].get(2) }
    }

    /// A login role that may use the extension, as an application's.
    #[track_caller]
    pub fn application(&self, name_hint: &str) -> Role {
        let role = self.role(name_hint, "");
        self.admin().query("SELECT tenancy.grant_usage($1::text::regrole)", &[&role.to_string()]);
        role
    }

    /// A new session of `role`, each call of which is a transaction of that tenant.
    #[track_caller]
    pub fn enter(&self, role: &Role, tenant: &Tenant) -> TenantSession {
        TenantSession { session: self.login(role), code: tenant.code.clone() }
    }

    /// Tenants `red` and `blue`, a protected table (id, tenant_id, item) of a separate owner, one application role with
    /// all table privileges on it, and a client for each tenant. `red()` and `blue()` are their ids in SQL, for forging.
    #[track_caller]
    pub fn two_tenants_sharing(&self, table: &str) -> (TenantSession, TenantSession) {
        let (red, blue) = (self.tenant("red"), self.tenant("blue"));
        let (owner, app) = (self.role("owner", ""), self.application("app"));
        let name = quote_ident(table);
        let admin = self.admin();
        for tenant in [&red, &blue] {
            admin.run(&format!(
                "CREATE FUNCTION public.{}() RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT '{}'::uuid $$",
                tenant.code, tenant.id
            ));
        }
        admin.run(&format!(
            "CREATE TABLE public.{name} (
                 id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL, item text NOT NULL);
             ALTER TABLE public.{name} OWNER TO {owner}"
        ));
        admin.query("SELECT tenancy.protect_table($1::text::regclass)", &[&format!("public.{name}")]);
        admin.run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON public.{name} TO {app}"));
        (self.enter(&app, &red), self.enter(&app, &blue))
    }
}

/// A login connection on which each call is one transaction: BEGIN, set_tenant, the statement, COMMIT.
#[derive(Debug)]
pub struct TenantSession {
    session: Session,
    code: String,
}

impl TenantSession {
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The connection underneath, outside of any transaction and tenant.
    pub fn session(&self) -> &Session {
        &self.session
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.within(sql, |session| session.try_run(sql));
    }

    #[track_caller]
    pub fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.within(sql, |session| session.try_query(sql, parameters))
    }

    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<String> {
        self.within(sql, |session| session.try_rows(sql))
    }

    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        let mut rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "{} expected one row\n  from: {sql}\n  got: {rows:?}", self.who());
        rows.remove(0)
    }

    #[track_caller]
    pub fn sees(&self, sql: &str, expected: &[&str]) {
        same_rows(&self.who(), sql, &self.rows(sql), expected);
    }

    #[track_caller]
    pub fn changes(&self, expected: u64, sql: &str) {
        let changed = self.within(sql, |session| session.try_change(sql));
        assert_eq!(changed, expected, "rows changed by {}\n  with: {sql}", self.who());
    }

    /// The statement, or the COMMIT after it, is refused with this SQLSTATE. A refused `set_tenant` is another story:
    /// `refused_entry`.
    #[track_caller]
    pub fn refused(&self, sqlstate: &str, sql: &str) -> DbError {
        refusal(&self.who(), sqlstate, sql, self.try_within(|session| session.try_run(sql)))
    }

    /// The tenant cannot be entered at all.
    #[track_caller]
    pub fn refused_entry(&self, sqlstate: &str) -> DbError {
        let sql = self.set_tenant();
        refusal(self.session.who(), sqlstate, &sql, self.session.try_run(&sql))
    }

    #[track_caller]
    pub fn explain(&self, sql: &str) -> String {
        self.rows(&format!("EXPLAIN (COSTS OFF) {sql}")).join("\n")
    }

    /// Several calls in one transaction of the tenant. `work` gets the bare session and must leave the transaction
    /// healthy (a refusal in it wants a savepoint); COMMIT must succeed.
    #[track_caller]
    pub fn transaction<T>(&self, work: impl FnOnce(&Session) -> T) -> T {
        self.within("a transaction", |session| {
            let done = work(session);
            // COMMIT of an aborted transaction rolls back without an error; any other statement says so.
            session.try_run("SELECT")?;
            Ok(done)
        })
    }

    fn set_tenant(&self) -> String {
        format!("SELECT tenancy.set_tenant({})", quote_literal(&self.code))
    }

    fn who(&self) -> String {
        format!("{} (tenant {})", self.session.who(), self.code)
    }

    #[track_caller]
    fn within<T>(&self, sql: &str, work: impl FnOnce(&Session) -> Result<T, Error>) -> T {
        match self.try_within(work) {
            Ok(done) => done,
            Err(error) => panic!("{} failed\n  with: {sql}\n  {}", self.who(), describe(&error)),
        }
    }

    #[track_caller]
    fn try_within<T>(&self, work: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        let session = &self.session;
        session.run("BEGIN");
        if let Err(error) = session.try_run(&self.set_tenant()) {
            session.run("ROLLBACK");
            panic!("{} cannot be entered: {}", self.who(), describe(&error));
        }
        let outcome = work(session).and_then(|done| session.try_run("COMMIT").map(|()| done));
        if outcome.is_err() {
            // After a refused COMMIT there is no transaction any more; ROLLBACK then is only a warning.
            session.run("ROLLBACK");
        }
        outcome
    }
}
