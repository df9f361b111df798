//! Integrity: proves that tenants are apart, or says exactly what is open.
//! SQL: sql/integrity.sql runs the checks; sql/integrity/*.sql are they. Decisions: plan.rs. Statements: store.rs.

mod plan;
mod store;

pgrx::extension_sql_file!(
    "../../sql/integrity.sql",
    requires = ["isolation", "fence", "audit", tenancy_internal::refuse_strangers]
);
pgrx::extension_sql_file!(
    "../../sql/integrity/protection.sql",
    name = "integrity_protection",
    requires = ["integrity"]
);
pgrx::extension_sql_file!("../../sql/integrity/paths.sql", name = "integrity_paths", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/keys.sql", name = "integrity_keys", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/roles.sql", name = "integrity_roles", requires = ["integrity"]);
pgrx::extension_sql_file!(
    "../../sql/integrity/rows.sql",
    name = "integrity_rows",
    requires = ["integrity", tenancy_internal::tally_rows]
);
pgrx::extension_sql_file!(
    "../../sql/integrity/orphans.sql",
    name = "integrity_orphans",
    requires = ["integrity_rows", tenancy_internal::change_as_owner]
);
pgrx::extension_sql_file!(
    "../../sql/integrity/proof.sql",
    name = "integrity_proof",
    requires = [
        "integrity",
        tenancy_internal::switch_tenant_step,
        tenancy_internal::stale_tenant_step,
        tenancy_internal::leave_tenant_step,
        tenancy_internal::confined_step
    ]
);
pgrx::extension_sql_file!("../../sql/integrity/answers.sql", name = "integrity_answers", requires = ["integrity"]);

#[pgrx::pg_schema]
mod tenancy_internal {
    use super::plan::Known;
    use super::store::{self, Plain};
    use crate::pg::{Oid, given, guc, session, strangers};
    use pgrx::{Uuid, pg_sys::panic::ErrorReport, prelude::*};

    /// Sets the tenant for work that is rolled back: nothing that is deferred runs.
    #[pg_extern]
    fn switch_tenant_step(tenant: Option<&str>) -> Result<Uuid, ErrorReport> {
        Ok(session::rehearse_tenant(given("tenant", tenant)?)?)
    }

    /// Sets the tenant as if an earlier transaction had done it.
    #[pg_extern]
    fn stale_tenant_step(tenant: Option<&str>) -> Result<(), ErrorReport> {
        Ok(session::set_stale_tenant(given("tenant", tenant)?)?)
    }

    /// What `tenancy_internal.run_text` gives with the rights of `role`, for whoever could become it.
    #[pg_extern]
    fn confined_step(
        role: Option<Oid>,
        as_session: Option<bool>,
        path: Option<&str>,
        statement: Option<&str>,
        counts: Option<bool>,
    ) -> Result<Option<String>, ErrorReport> {
        let (role, as_session) = (given("role", role)?, given("as_session", as_session)?);
        let text = (given("path", path)?, given("statement", statement)?, given("counts", counts)?);
        Ok(store::run_confined(role, as_session, text)?)
    }

    /// Keeps code of tables' owners from running with the rights of a superuser who looks at them; false ends it.
    #[pg_extern]
    fn refuse_strangers(is_on: Option<bool>) -> Result<(), ErrorReport> {
        if given("is_on", is_on)? {
            strangers::refuse()
        } else {
            strangers::allow()
        }
        Ok(())
    }

    /// Changes rows of a table as its owner, whom no policy binds meanwhile; gives the text that the statement gives.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.change_as_owner(relation regclass, statement text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn change_as_owner(relation: Option<Oid>, statement: Option<String>) -> Result<Option<String>, ErrorReport> {
        Ok(store::change_as_owner(given("relation", relation)?, given("statement", statement)?)?)
    }

    /// Leaves the transaction as one that never had a tenant.
    #[pg_extern]
    fn leave_tenant_step() {
        guc::leave();
    }

    /// Counts the rows of tables, and says whether each has a tenant among the keys given. Leaves out what the current role
    /// may not see all rows of. The lists `relations`, `attributes` and `are_shared` are of one length.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.tally_rows(
    relations oid[], attributes smallint[], are_shared boolean[], ids uuid[], numbers bigint[], codes text[]
) RETURNS TABLE (relation oid, row_count bigint, is_clean boolean)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn tally_rows(
        relations: Option<Vec<Option<Oid>>>,
        attributes: Option<Vec<Option<i16>>>,
        are_shared: Option<Vec<Option<bool>>>,
        ids: Option<Vec<Option<Uuid>>>,
        numbers: Option<Vec<Option<i64>>>,
        codes: Option<Vec<Option<String>>>,
    ) -> Result<TableIterator<'static, (name!(relation, Oid), name!(row_count, i64), name!(is_clean, bool))>, ErrorReport>
    {
        let (attributes, are_shared) = (each("attributes", attributes)?, each("are_shared", are_shared)?);
        let known =
            Known::new(each("ids", ids)?.into_iter().map(|id| *id), each("numbers", numbers)?, each("codes", codes)?);
        let tables = each("relations", relations)?.into_iter().zip(attributes).zip(are_shared);
        let plain = |((relation, attribute), is_shared)| Plain { relation, attribute, is_shared };
        let tables: Vec<Plain> = tables.map(plain).collect();
        Ok(TableIterator::new(store::tally_rows(&tables, &known)))
    }

    /// The elements of a list, none of which may be NULL.
    fn each<T>(argument: &'static str, list: Option<Vec<Option<T>>>) -> Result<Vec<T>, crate::error::TenancyError> {
        given(argument, list)?.into_iter().map(|element| given(argument, element)).collect()
    }
}
