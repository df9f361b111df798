//! Stamps: who made a row and when, who changed it last and when, as the server knows it.
//! SQL: sql/lifecycle/stamps.sql. The trigger: pg::rows.

use super::rows::{self, MOMENT, Member, Step, TEXT, Wanted, WantedTrigger};
use crate::error::{RowsError, TenancyError};
use crate::model::Sql;
use crate::pg::{Oid, spi};

const COLUMNS: [Wanted; 4] = [
    Wanted { name: "created_at", type_name: MOMENT, reason: "when the row was made; NULL for rows from before" },
    Wanted { name: "updated_at", type_name: MOMENT, reason: "when it was changed last" },
    Wanted { name: "created_by", type_name: TEXT, reason: "who made it: app.current_user_id, else the session's role" },
    Wanted { name: "updated_by", type_name: TEXT, reason: "who changed it last" },
];

const NAME: &str = "tenancy_stamps";
const FUNCTION: &str = "tenancy_internal.stamp_row";
const TRIGGER: WantedTrigger = WantedTrigger {
    name: NAME,
    function: FUNCTION,
    events: [" BEFORE INSERT OR UPDATE ON ", " BEFORE INSERT OR DELETE OR UPDATE ON "],
    // 1 for each row, 2 BEFORE, 4 INSERT, 8 DELETE, 16 UPDATE
    kinds: [23, 31],
    call: "tenancy_internal.stamp_row()",
    reason: "writes the four columns, whatever a statement says",
};

/// The steps from a family as it stands to a stamped one; empty when nothing is to do.
fn plan(family: &[Member], target: Oid) -> Result<Vec<Step>, TenancyError> {
    let root = rows::refuse_unfit(family, target)?;
    let mut steps = rows::add_columns(root, &COLUMNS)?;
    steps.extend(rows::add_triggers(family, &TRIGGER)?);
    Ok(steps)
}

/// The steps that `enable` would take.
fn planned(target: Oid) -> Result<Vec<Step>, TenancyError> {
    spi::undisturbed(|| {
        let family = rows::family(target, spi::Snapshot::Statement)?;
        let steps = plan(&family, target)?;
        rows::refuse_strangers(&family)?;
        Ok(steps)
    })
}

/// Stamps the rows of `target`, its partitions and children.
fn enable(target: Oid) -> Result<(), TenancyError> {
    if planned(target)?.is_empty() && is_recorded(target)? {
        return Ok(());
    }
    spi::undisturbed(|| {
        let family = rows::family(target, spi::Snapshot::Latest)?;
        let root = rows::refuse_unfit(&family, target)?;
        rows::lock(root)?;
        let family = rows::family(target, spi::Snapshot::Latest)?;
        let root = rows::refuse_unfit(&family, target)?;
        rows::execute(&plan(&family, target)?)?;
        let sql = Sql::text(
            "INSERT INTO tenancy_internal.stamped_tables AS s (relation, columns_added) VALUES ($1, $2)
             ON CONFLICT (relation) DO UPDATE
                SET columns_added = ARRAY(SELECT pg_catalog.unnest(s.columns_added) UNION
                                          SELECT pg_catalog.unnest(EXCLUDED.columns_added) ORDER BY 1)",
        );
        let added = rows::added(root, &COLUMNS);
        rows::private(|| spi::run(&sql, &[target.into(), added.into()]))
    })
}

fn is_recorded(target: Oid) -> Result<bool, TenancyError> {
    let sql = Sql::text("SELECT true FROM tenancy_internal.stamped_tables WHERE relation = $1::pg_catalog.regclass");
    rows::private(|| Ok(!spi::read(&sql, &[target.into()], |row| row.must::<bool>(1))?.is_empty()))
}

/// Ends it. The columns stay, for they tell something, unless those that were added are to be dropped.
fn disable(target: Oid, drop_columns: bool) -> Result<(), TenancyError> {
    spi::undisturbed(|| {
        let family = rows::family(target, spi::Snapshot::Latest)?;
        let Some(root) = family.first() else { return Err(TenancyError::UnknownRelation { oid: target.to_u32() }) };
        if !is_recorded(target)? {
            return Err(RowsError::NotStamped { table: root.name.clone() }.into());
        }
        rows::refuse_strangers(&family)?;
        rows::lock(root)?;
        let family = rows::family(target, spi::Snapshot::Latest)?;
        let mut steps = rows::drop_triggers(&family, NAME, FUNCTION);
        let sql = Sql::text(
            "DELETE FROM tenancy_internal.stamped_tables WHERE relation = $1::pg_catalog.regclass RETURNING columns_added",
        );
        let added = rows::private(|| spi::write(&sql, &[target.into()], |row| row.must::<Vec<String>>(1)))?;
        if let (true, Some(root)) = (drop_columns, family.first()) {
            steps.extend(rows::drop_columns(root, &added.concat(), "enable_stamps added it"));
        }
        rows::execute(&steps)
    })
}

/// Whether the triggers of a stamped table are in place, and its columns.
fn is_enforced(target: Oid) -> Result<bool, TenancyError> {
    let family = spi::undisturbed(|| rows::family(target, spi::Snapshot::Statement))?;
    Ok(plan(&family, target).is_ok_and(|steps| steps.is_empty()))
}

#[pgrx::pg_schema]
pub(super) mod tenancy {
    use crate::pg::{Oid, given, on_table};
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Has the server write `created_at`, `updated_at`, `created_by` and `updated_by` of each row of `target`, its
    /// partitions and children; adds the columns that are missing.
    ///
    /// 42804 for a column of another type, 42809 for what is no table of the user's own, 42501 without ownership.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.enable_stamps(target regclass) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn enable_stamps(target: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(on_table(target, super::enable)?)
    }

    /// Ends what `enable_stamps` began. The columns stay; with `drop_columns` those that it added go.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.disable_stamps(target regclass, drop_columns boolean DEFAULT false) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn disable_stamps(target: Option<Oid>, drop_columns: Option<bool>) -> Result<(), ErrorReport> {
        let drop_columns = given("drop_columns", drop_columns)?;
        Ok(on_table(target, |target| super::disable(target, drop_columns))?)
    }

    /// The steps `enable_stamps` would take; changes nothing.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.plan_stamps(target regclass)
RETURNS TABLE (step integer, action text, statement text, lock text, reason text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn plan_stamps(
        target: Option<Oid>,
    ) -> Result<
        TableIterator<
            'static,
            (
                name!(step, i32),
                name!(action, &'static str),
                name!(statement, Option<String>),
                name!(lock, Option<&'static str>),
                name!(reason, String),
            ),
        >,
        ErrorReport,
    > {
        let steps = on_table(target, super::planned)?;
        Ok(TableIterator::new((1..).zip(steps).map(|(number, step)| {
            (number, step.action, step.statement.map(|sql| sql.to_string()), step.lock, step.reason)
        })))
    }
}

#[pgrx::pg_schema]
pub(super) mod tenancy_internal {
    use crate::pg::{Oid, given};
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Whether all that stamps the rows of a table is in place.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.is_stamped(relation oid) RETURNS boolean
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn is_stamped(relation: Option<Oid>) -> Result<bool, ErrorReport> {
        Ok(super::is_enforced(given("relation", relation)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::rows::tests::{column, member, statements};
    use super::*;

    #[test]
    fn a_plain_table_gets_what_it_lacks() {
        let mut table = member(1, "orders");
        table.columns.push(column("created_at", "timestamp with time zone"));
        assert_eq!(
            statements(&plan(&[table], Oid::from(1)).unwrap()),
            [
                "ALTER TABLE public.orders ADD COLUMN updated_at timestamp with time zone",
                "ALTER TABLE public.orders ADD COLUMN created_by text",
                "ALTER TABLE public.orders ADD COLUMN updated_by text",
                "CREATE TRIGGER tenancy_stamps BEFORE INSERT OR UPDATE ON public.orders \
                 FOR EACH ROW EXECUTE FUNCTION tenancy_internal.stamp_row()",
            ]
        );
    }

    #[test]
    fn a_column_of_another_type_is_refused() {
        let refused = |type_name| {
            let mut table = member(1, "orders");
            table.columns.push(column("updated_by", type_name));
            plan(&[table], Oid::from(1))
        };
        for type_name in ["integer", "character varying(20)"] {
            assert!(matches!(refused(type_name), Err(TenancyError::Rows(RowsError::WrongType { .. }))));
        }
        assert!(refused("character varying").is_ok());
    }

    #[test]
    fn partitions_have_their_parents_trigger_and_children_one_of_their_own() {
        let parent = |name| Some(member(1, name).name);
        let partition = Member { is_partition: true, parent: parent("log"), ..member(2, "log_1") };
        let steps = plan(&[Member { kind: 'p', ..member(1, "log") }, partition], Oid::from(1)).unwrap();
        assert_eq!(statements(&steps).iter().filter(|sql| sql.starts_with("CREATE TRIGGER")).count(), 1);
        assert!(statements(&steps).iter().any(|sql| sql.contains("BEFORE INSERT OR DELETE OR UPDATE ON public.log ")));
        let child = Member { parent: parent("log"), ..member(2, "log_1") };
        let steps = plan(&[member(1, "log"), child], Oid::from(1)).unwrap();
        assert_eq!(statements(&steps).iter().filter(|sql| sql.starts_with("CREATE TRIGGER")).count(), 2);
    }
}
