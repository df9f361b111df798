//! The statements of locking down.

use super::plan::{self, Catalog, Method, Plan, RoleId, Standing};
use crate::error::TenancyError;
use crate::model::catalogs::{self, Kind};
use crate::model::{Deparsed, Ident, Sql};
use crate::pg::spi::{self, Snapshot};
use crate::pg::{Oid, hooks, role};
use std::collections::{BTreeMap, BTreeSet};

/// A step as `plan_lock_down` shows it.
pub struct Step {
    pub action: String,
    pub statement: Option<Sql>,
    pub reason: String,
}

/// Takes the catalogs from a role.
pub fn lock_down(target: Oid, method: &str) -> Result<(), TenancyError> {
    super::super::store::refuse_others_than_superusers("lock_down_catalogs")?;
    let name = role::name_of(target)?;
    working(|| {
        hold()?;
        let method = decide(target, &name, method, Snapshot::Latest)?;
        spi::run(
            &Sql::text(
                "INSERT INTO tenancy_internal.locked_down_roles AS l (role, by_grants) VALUES ($1::oid::regrole, $2)
                 ON CONFLICT (role) DO UPDATE SET by_grants = EXCLUDED.by_grants WHERE l.by_grants <> EXCLUDED.by_grants",
            ),
            &[target.into(), (method == Method::Grants).into()],
        )?;
        if needs_replacements(target, Snapshot::Latest)? {
            spi::run(&replacements(true, &name), &[])?;
        }
        adjust_grants()?;
        if method == Method::Grants {
            refuse_what_is_left(target, &name)?;
            spi::notice(
                "The catalogs that show other sessions are taken from PUBLIC; every other role of today has them by name, and \
                 a later one gets them by another call of tenancy.lock_down_catalogs.",
            );
        }
        tell_of_other_databases(target, &name)
    })
}

/// Gives a role the catalogs back.
pub fn unlock(target: Oid) -> Result<(), TenancyError> {
    super::super::store::refuse_others_than_superusers("unlock_catalogs")?;
    working(|| {
        hold()?;
        let removed = spi::write(
            &Sql::text("DELETE FROM tenancy_internal.locked_down_roles WHERE role = $1::oid::regrole RETURNING 1"),
            &[target.into()],
            |_| Ok(()),
        )?;
        if removed.is_empty() {
            return Err(TenancyError::NotLockedDown { role: role::shown(target) });
        }
        // A role that was dropped took its grants along.
        if let Ok(name) = role::name_of(target) {
            spi::run(&replacements(false, &name), &[])?;
        }
        adjust_grants()
    })
}

/// What `lock_down` would do.
pub fn plan_lock_down(target: Oid, method: &str) -> Result<Vec<Step>, TenancyError> {
    super::super::store::refuse_others_than_superusers("plan_lock_down")?;
    let name = role::name_of(target)?;
    working(|| {
        let method = decide(target, &name, method, Snapshot::Statement)?;
        let found = find_catalogs(Snapshot::Statement)?;
        let mut steps = Vec::new();
        if needs_replacements(target, Snapshot::Statement)? {
            steps.push(Step {
                action: "give views of its own part".to_owned(),
                statement: Some(replacements(true, &name)),
                reason: "they show what a session knows of itself".to_owned(),
            });
        }
        let mut locked = locked_by_grants(Snapshot::Statement)?;
        locked.retain(|role| *role != target);
        if method == Method::Grants {
            locked.push(target);
        } else if standing(target, Snapshot::Statement)? == Standing::Open {
            steps.extend(found.iter().map(|catalog| Step {
                action: format!("refuse {}", catalog.name.as_str()),
                statement: None,
                reason: "it shows other sessions, or what all tenants have".to_owned(),
            }));
        }
        steps.extend(grants(&found, &locked, Snapshot::Statement)?.changes.iter().map(|change| Step {
            action: change.action().to_owned(),
            statement: Some(change.statement()),
            reason: change.reason().to_owned(),
        }));
        Ok(steps)
    })
}

/// Runs `work` with the right to do it, and past our own guard.
fn working<T>(work: impl FnOnce() -> Result<T, TenancyError>) -> Result<T, TenancyError> {
    spi::as_extension_owner(|| spi::own_work(work))
}

/// Two calls at once would not see each other's grants, and no role may come or go while grants are made to all.
fn hold() -> Result<(), TenancyError> {
    spi::run(&Sql::text("LOCK TABLE tenancy_internal.locked_down_roles IN SHARE ROW EXCLUSIVE MODE"), &[])?;
    spi::run(&Sql::text("LOCK TABLE pg_authid IN SHARE MODE"), &[])
}

fn decide(target: Oid, name: &Ident, method: &str, snapshot: Snapshot) -> Result<Method, TenancyError> {
    let facts = spi::read(
        &Sql::text("SELECT rolsuper, pg_has_role(oid, 'pg_read_all_stats', 'MEMBER') FROM pg_roles WHERE oid = $1"),
        &[target.into()],
        |row| Ok((row.must::<bool>(1)?, row.must::<bool>(2)?)),
    )?;
    let refused = |reason, hint| TenancyError::CannotLockDown { role: name.clone(), reason, hint };
    match facts.first() {
        Some((true, _)) => {
            return Err(refused(
                "It is a superuser.",
                "Give the application a login role of its own, without SUPERUSER.",
            ));
        }
        Some((_, true)) => {
            return Err(refused(
                "Members of pg_read_all_stats are meant to see all sessions.",
                "REVOKE pg_monitor or pg_read_all_stats from it first.",
            ));
        }
        _ => {}
    }
    plan::method(method, standing(target, snapshot)?, hooks::are_installed())
}

fn standing(target: Oid, snapshot: Snapshot) -> Result<Standing, TenancyError> {
    let found = spi::read_in(
        snapshot,
        &Sql::text("SELECT by_grants FROM tenancy_internal.locked_down_roles WHERE role = $1::oid::regrole"),
        &[target.into()],
        |row| row.must::<bool>(1),
    )?;
    Ok(found.first().map_or(Standing::Open, |by_grants| {
        Standing::LockedDown(if *by_grants { Method::Grants } else { Method::Hooks })
    }))
}

fn locked_by_grants(snapshot: Snapshot) -> Result<Vec<Oid>, TenancyError> {
    let sql = Sql::text("SELECT role::oid FROM tenancy_internal.locked_down_roles WHERE by_grants");
    spi::read_in(snapshot, &sql, &[], |row| row.must::<Oid>(1))
}

/// GRANT or REVOKE of the views that show a session's own part.
fn replacements(gives: bool, role: &Ident) -> Sql {
    let mut sql = Sql::text(if gives { "GRANT SELECT ON " } else { "REVOKE SELECT ON " });
    for (position, view) in catalogs::REPLACEMENTS.into_iter().enumerate() {
        sql = sql.then(if position > 0 { ", tenancy." } else { "tenancy." }).then(view);
    }
    sql.then(if gives { " TO " } else { " FROM " }).ident(role)
}

fn needs_replacements(target: Oid, snapshot: Snapshot) -> Result<bool, TenancyError> {
    let sql = Sql::text(
        "SELECT NOT bool_and(has_table_privilege($1::oid, c.oid, 'SELECT')) FROM pg_class c
          WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relname = ANY ($2)",
    );
    let views: Vec<String> = catalogs::REPLACEMENTS.map(str::to_owned).into();
    Ok(spi::read_in(snapshot, &sql, &[target.into(), views.into()], |row| row.must::<bool>(1))?.contains(&true))
}

/// Brings the grants to where the roles on record want them.
fn adjust_grants() -> Result<(), TenancyError> {
    let locked = locked_by_grants(Snapshot::Latest)?;
    let found = find_catalogs(Snapshot::Latest)?;
    let Plan { changes, records } = grants(&found, &locked, Snapshot::Latest)?;
    for change in &changes {
        spi::run(&change.statement(), &[])?;
    }
    for record in records {
        let given_to: Vec<Oid> = record.given_to.iter().map(|role| Oid::from(*role)).collect();
        spi::run(
            &Sql::text(
                "INSERT INTO tenancy_internal.revoked_catalogs (kind, object, acl_before, given_to)
                 VALUES ($1, $2, $3, $4::oid[]::regrole[])
                 ON CONFLICT (kind, object) DO UPDATE SET given_to = EXCLUDED.given_to",
            ),
            &[record.kind.name().into(), record.name.as_str().into(), record.acl_before.into(), given_to.into()],
        )?;
    }
    if locked.is_empty() { forget_grants() } else { Ok(()) }
}

fn grants(found: &[Catalog], locked: &[Oid], snapshot: Snapshot) -> Result<Plan, TenancyError> {
    let names =
        roles(&Sql::text("SELECT oid, rolname::text FROM pg_roles WHERE $1::oid[] IS NOT NULL"), locked, snapshot)?;
    if locked.is_empty() {
        return Ok(Plan { changes: plan::give_back(found, &names), records: Vec::new() });
    }
    Ok(plan::take(found, &roles(&Sql::text(KEEPERS), locked, snapshot)?, &names))
}

/// The roles that keep the catalogs: neither one that is locked down, nor one with its rights, nor one it can take on. Who
/// has them through another of these needs no grant of his own.
const KEEPERS: &str = "
    WITH keepers AS (
        SELECT r.oid, r.rolname FROM pg_roles r
         WHERE NOT r.rolsuper AND (r.rolname !~ '^pg_' OR r.rolname = 'pg_read_all_stats')
           AND NOT EXISTS (SELECT FROM unnest($1::oid[]) AS l (role) JOIN pg_roles x ON x.oid = l.role
                            WHERE pg_has_role(r.oid, l.role, 'USAGE') OR pg_has_role(l.role, r.oid, 'MEMBER'))
    )
    SELECT k.oid, k.rolname::text FROM keepers k
     WHERE NOT EXISTS (SELECT FROM keepers o WHERE o.oid <> k.oid AND pg_has_role(k.oid, o.oid, 'USAGE'))";

fn roles(sql: &Sql, locked: &[Oid], snapshot: Snapshot) -> Result<BTreeMap<RoleId, Ident>, TenancyError> {
    let named = |row: spi::Row<'_>| Ok((row.must::<Oid>(1)?.to_u32(), Ident::new(&row.must::<String>(2)?)?));
    Ok(spi::read_in(snapshot, sql, &[locked.to_vec().into()], named)?.into_iter().collect())
}

/// The relations and functions that show other sessions, with their privileges.
fn find_catalogs(snapshot: Snapshot) -> Result<Vec<Catalog>, TenancyError> {
    let sql = Sql::text(
        "WITH objects AS (
             SELECT 'relation' AS kind, tableoid AS class, oid, relname AS name, relnamespace AS schema, relacl AS acl,
                    acldefault('r', relowner) AS by_default, 'SELECT' AS privilege
               FROM pg_class WHERE relkind IN ('r', 'v', 'm')
             UNION ALL
             SELECT 'function', tableoid, oid, proname, pronamespace, proacl, acldefault('f', proowner), 'EXECUTE'
               FROM pg_proc WHERE prokind <> 'p'
         )
         SELECT o.kind, (pg_identify_object(o.class, o.oid, 0)).identity, o.name::text, e.extname::text, o.acl::text[],
                h.holders, r.given_to::oid[]
           FROM objects o
           LEFT JOIN pg_depend d ON d.classid = o.class AND d.objid = o.oid AND d.objsubid = 0 AND d.deptype = 'e'
                                AND d.refclassid = 'pg_extension'::regclass
           LEFT JOIN pg_extension e ON e.oid = d.refobjid
           LEFT JOIN tenancy_internal.revoked_catalogs r
                  ON r.kind = o.kind AND r.object = (pg_identify_object(o.class, o.oid, 0)).identity
          CROSS JOIN LATERAL (SELECT COALESCE(array_agg(x.grantee), '{}') AS holders
                                FROM aclexplode(COALESCE(o.acl, o.by_default)) AS x
                               WHERE x.privilege_type = o.privilege) AS h
          WHERE e.oid IS NOT NULL OR (o.schema = 'pg_catalog'::regnamespace AND o.oid < 16384)
          ORDER BY 1, 2",
    );
    let found = spi::read_in(snapshot, &sql, &[], |row| {
        let (kind, name) = (row.must::<String>(1)?, row.must::<String>(3)?);
        let extension = row.get::<String>(4)?;
        let kind = Kind::from_name(&kind).filter(|kind| catalogs::tells_of_others(*kind, &name, extension.as_deref()));
        let Some(kind) = kind else { return Ok(None) };
        let ids = |oids: Vec<Oid>| oids.into_iter().map(Oid::to_u32).collect::<BTreeSet<RoleId>>();
        let mut holders = ids(row.must(6)?);
        Ok(Some(Catalog {
            kind,
            name: Deparsed::from_catalog(row.must(2)?),
            acl: row.get(5)?,
            is_public: holders.remove(&0),
            holders,
            given_to: row.get::<Vec<Oid>>(7)?.map(ids),
        }))
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Ends the record, and puts privileges back to the letter where they say the same as before: a list that only spells out
/// the default would be searched, and dumped, for ever.
fn forget_grants() -> Result<(), TenancyError> {
    for sql in [
        "UPDATE pg_class c SET relacl = r.acl_before::aclitem[] FROM tenancy_internal.revoked_catalogs r
          WHERE r.kind = 'relation' AND c.oid = to_regclass(r.object)
            AND (SELECT array_agg(i ORDER BY i) FROM unnest(c.relacl::text[]) AS i)
              = (SELECT array_agg(i ORDER BY i) FROM unnest(COALESCE(r.acl_before, acldefault('r', c.relowner)::text[])) AS i)",
        "UPDATE pg_proc p SET proacl = r.acl_before::aclitem[] FROM tenancy_internal.revoked_catalogs r
          WHERE r.kind = 'function' AND p.oid = to_regprocedure(r.object)
            AND (SELECT array_agg(i ORDER BY i) FROM unnest(p.proacl::text[]) AS i)
              = (SELECT array_agg(i ORDER BY i) FROM unnest(COALESCE(r.acl_before, acldefault('f', p.proowner)::text[])) AS i)",
        "DELETE FROM tenancy_internal.revoked_catalogs",
    ] {
        spi::run(&Sql::text(sql), &[])?;
    }
    Ok(())
}

/// Grants in the role's own name, or through roles that it can take on, would leave the lock open.
fn refuse_what_is_left(target: Oid, name: &Ident) -> Result<(), TenancyError> {
    let (kinds, objects): (Vec<String>, Vec<String>) = find_catalogs(Snapshot::Latest)?
        .iter()
        .map(|catalog| (catalog.kind.name().to_owned(), catalog.name.as_str().to_owned()))
        .unzip();
    let left = spi::write(
        &Sql::text(
            "SELECT o.object, r.rolname::text FROM unnest($2::text[], $3::text[]) AS o (kind, object), pg_roles r
              WHERE pg_has_role($1::oid, r.oid, 'MEMBER')
                AND CASE o.kind WHEN 'relation' THEN has_table_privilege(r.oid, to_regclass(o.object), 'SELECT')
                                ELSE has_function_privilege(r.oid, to_regprocedure(o.object), 'EXECUTE') END
              ORDER BY (SELECT count(*) FROM pg_roles g WHERE pg_has_role(r.oid, g.oid, 'MEMBER')), r.rolname, o.object LIMIT 1",
        ),
        &[target.into(), kinds.into(), objects.into()],
        |row| Ok((row.must::<String>(1)?, row.must::<String>(2)?)),
    )?;
    match left.into_iter().next() {
        Some((object, through)) => Err(TenancyError::StillGranted { role: name.clone(), object, through }),
        None => Ok(()),
    }
}

/// Sessions of the whole server are seen from each of its databases.
fn tell_of_other_databases(target: Oid, name: &Ident) -> Result<(), TenancyError> {
    let others = spi::read(
        &Sql::text(
            "SELECT quote_ident(datname) FROM pg_database
              WHERE datallowconn AND datname <> current_database() AND has_database_privilege($1::oid, oid, 'CONNECT')
              ORDER BY datname",
        ),
        &[target.into()],
        |row| row.must::<String>(1),
    )?;
    if !others.is_empty() {
        spi::notice(&format!(
            "Role {name} may connect to other databases, where the same sessions are seen: {}. REVOKE CONNECT there, or lock \
             its catalogs down there too.",
            others.join(", ")
        ));
    }
    Ok(())
}
