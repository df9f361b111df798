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
pgrx::extension_sql_file!(
    "../../sql/integrity/roles.sql",
    name = "integrity_roles",
    requires = ["integrity", tenancy_internal::setting_fault, tenancy_internal::invalid_setting]
);
pgrx::extension_sql_file!(
    "../../sql/integrity/rows.sql",
    name = "integrity_rows",
    requires = ["integrity", tenancy_internal::tally_rows]
);
pgrx::extension_sql_file!(
    "../../sql/integrity/orphans.sql",
    name = "integrity_orphans",
    requires = ["integrity_rows", tenancy_internal::repair_rows, tenancy_internal::put_row_back]
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
    use super::store::{self, Plain, Repair};
    use crate::pg::{Oid, given, guc, invalid, on_relation, session, strangers};
    use pgrx::{AnyElement, Uuid, pg_sys::panic::ErrorReport, prelude::*};

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

    /// Repairs the orphans of a foreign key in a span of blocks of a table, or of a partition of it: `{"changed": rows}`, with the rows
    /// where they go to quarantine. 42501 without the right to read and change all rows of the table.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.repair_rows(
    target regclass, part regclass, constraint_name text, action text, reassign_to jsonb, from_block bigint, to_block bigint
) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn repair_rows(
        target: Option<Oid>,
        part: Option<Oid>,
        constraint_name: Option<&str>,
        action: Option<&str>,
        reassign_to: Option<AnyElement>,
        from_block: Option<i64>,
        to_block: Option<i64>,
    ) -> Result<Option<String>, ErrorReport> {
        let repair = Repair {
            target: given("target", target)?,
            part: given("part", part)?,
            constraint: given("constraint_name", constraint_name)?,
            action: given("action", action)?,
            reassign_to,
            blocks: (given("from_block", from_block)?, given("to_block", to_block)?),
        };
        Ok(store::repair(&repair)?)
    }

    /// Puts a row that was in quarantine back into its table.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.put_row_back(relation regclass, given jsonb) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn put_row_back(relation: Option<Oid>, row: Option<AnyElement>) -> Result<(), ErrorReport> {
        let row = given("row", row)?;
        Ok(on_relation("relation", relation, |relation| store::put_row_back(relation, row))?)
    }

    /// What is wrong with a value for a setting of ours; NULL for a valid one.
    #[pg_extern(stable)]
    fn setting_fault(name: Option<&str>, value: Option<&str>) -> Result<Option<String>, ErrorReport> {
        Ok(invalid::fault(given("name", name)?, given("value", value)?))
    }

    /// Which setting keeps this session from having a tenant; NULL for none.
    #[pg_extern(stable)]
    fn invalid_setting() -> Option<String> {
        invalid::refuse_any().err().map(|refusal| refusal.to_string())
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
