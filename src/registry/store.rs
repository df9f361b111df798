//! The registry's statements.

use super::plan::{self, Move};
use crate::error::TenancyError;
use crate::model::{Code, Key, Sql, Status};
use crate::pg::{cache, spi};
use pgrx::{AnyElement, Uuid};

/// The arguments of `create_tenant`.
pub struct NewTenant<'a> {
    pub code: &'a str,
    pub name: Option<&'a str>,
    pub plan: &'a str,
    pub settings: AnyElement,
    pub contact: AnyElement,
    pub id: Option<Uuid>,
    pub number: Option<i64>,
}

pub fn create(new: NewTenant<'_>, if_not_exists: bool) -> Result<Uuid, TenancyError> {
    let code = Code::new(new.code)?;
    json_object("settings", Some(new.settings))?;
    json_object("contact", Some(new.contact))?;
    known_plan(new.plan)?;
    loop {
        let created = spi::write(
            &Sql::text(
                "INSERT INTO tenancy.tenants AS t (id, number, code, name, plan, settings, contact)
                 VALUES (COALESCE($1, pg_catalog.gen_random_uuid()),
                         COALESCE($2, pg_catalog.nextval('tenancy.tenants_number_seq')), $3, $4, $5, $6, $7)
                 ON CONFLICT DO NOTHING RETURNING t.id",
            ),
            &[
                new.id.into(),
                new.number.into(),
                code.as_str().into(),
                new.name.unwrap_or(code.as_str()).into(),
                new.plan.into(),
                spi::jsonb(Some(new.settings)),
                spi::jsonb(Some(new.contact)),
            ],
            |row| row.must::<Uuid>(1),
        )?;
        if let Some(id) = created.into_iter().next() {
            if let Some(number) = new.number {
                advance_numbers(number)?;
            }
            return Ok(id);
        }
        if let Some(found) = existing(&new, &code, if_not_exists)? {
            return Ok(found);
        }
        // Only the number drawn from the sequence was taken, by a tenant that was given it; the next one may be free.
    }
}

/// The tenant that kept a new one from being created; None when it is just a number drawn from the sequence.
fn existing(new: &NewTenant<'_>, code: &Code, if_not_exists: bool) -> Result<Option<Uuid>, TenancyError> {
    let taken = |key, value: String| TenancyError::DuplicateTenant { key, value };
    if let Some(tenant) = cache::find(&Key::Code(*code))? {
        let differs = |key, stored: String, given: String| TenancyError::TenantDiffers {
            code: code.as_str().to_owned(),
            key,
            stored,
            given,
        };
        if !if_not_exists {
            return Err(taken("code", code.as_str().to_owned()));
        }
        if let Some(id) = new.id.filter(|id| id.as_bytes() != tenant.id.as_bytes()) {
            return Err(differs("id", tenant.id.to_string(), id.to_string()));
        }
        if let Some(number) = new.number.filter(|number| *number != tenant.number) {
            return Err(differs("number", tenant.number.to_string(), number.to_string()));
        }
        return Ok(Some(Uuid::from_bytes(*tenant.id.as_bytes())));
    }
    if let Some(id) = new.id {
        let key = Key::Id(uuid::Uuid::from_bytes(*id.as_bytes()));
        if cache::find(&key)?.is_some() {
            return Err(taken("id", key.to_string()));
        }
    }
    match new.number {
        Some(number) if cache::find(&Key::Number(number))?.is_some() => Err(taken("number", number.to_string())),
        _ => Ok(None),
    }
}

/// Keeps numbers drawn later clear of one that was given, unless that would use up the sequence.
fn advance_numbers(given: i64) -> Result<(), TenancyError> {
    const FAR: i64 = i64::MAX / 2;
    if (1..FAR).contains(&given) {
        spi::run(
            &Sql::text(
                "SELECT pg_catalog.setval('tenancy.tenants_number_seq', GREATEST(last_value, $1))
                   FROM tenancy.tenants_number_seq",
            ),
            &[given.into()],
        )?;
    }
    Ok(())
}

/// Refuses an unknown plan, and holds a known one until the transaction ends: see `keep_plans` in sql/registry.sql.
fn known_plan(plan: &str) -> Result<(), TenancyError> {
    let sql = Sql::text("SELECT 1 FROM tenancy.plans WHERE name = $1 FOR KEY SHARE");
    let found = spi::write(&sql, &[plan.into()], |row| row.must::<i32>(1))?;
    if found.is_empty() {
        return Err(TenancyError::UnknownPlan { plan: plan.to_owned() });
    }
    Ok(())
}

fn json_object(argument: &'static str, value: Option<AnyElement>) -> Result<(), TenancyError> {
    let sql = Sql::text("SELECT pg_catalog.jsonb_typeof($1) <> 'object'");
    match spi::read(&sql, &[spi::jsonb(value)], |row| row.get::<bool>(1))?.first() {
        Some(Some(true)) => Err(TenancyError::NotAnObject { argument }),
        _ => Ok(()),
    }
}

pub fn update(
    tenant: &Key,
    name: Option<&str>,
    settings: Option<AnyElement>,
    contact: Option<AnyElement>,
) -> Result<(), TenancyError> {
    let id = known(tenant)?;
    json_object("settings", settings)?;
    json_object("contact", contact)?;
    spi::run(
        &Sql::text(
            "UPDATE tenancy.tenants
                SET name = COALESCE($2, name), settings = COALESCE($3, settings), contact = COALESCE($4, contact),
                    updated_at = pg_catalog.now()
              WHERE id = $1",
        ),
        &[id.into(), name.into(), spi::jsonb(settings), spi::jsonb(contact)],
    )
}

pub fn set_plan(tenant: &Key, plan: &str) -> Result<(), TenancyError> {
    let id = known(tenant)?;
    known_plan(plan)?;
    spi::run(
        &Sql::text("UPDATE tenancy.tenants SET plan = $2, updated_at = pg_catalog.now() WHERE id = $1"),
        &[id.into(), plan.into()],
    )
}

pub fn change_status(tenant: &Key, wish: Move, reason: Option<&str>) -> Result<(), TenancyError> {
    let id = known(tenant)?;
    let stored = spi::write(
        &Sql::text("SELECT status, code, purged_at IS NOT NULL FROM tenancy.tenants WHERE id = $1 FOR UPDATE"),
        &[id.into()],
        |row| Ok((row.must::<String>(1)?, row.must::<String>(2)?, row.must::<bool>(3)?)),
    )?;
    let Some((status, code, is_purged)) = stored.into_iter().next() else {
        return Err(TenancyError::UnknownTenant { tenant: tenant.to_string() });
    };
    plan::refuse_purged(&code, is_purged, wish)?;
    let now = Status::from_stored(&status)
        .ok_or_else(|| TenancyError::Internal { what: format!("tenant \"{code}\" has unknown status \"{status}\"") })?;
    let next = plan::next_status(&code, now, wish)?;
    spi::run(
        &Sql::text(
            "UPDATE tenancy.tenants
                SET status = $2, status_reason = $3, updated_at = pg_catalog.now(),
                    deleted_at = CASE WHEN $2 = 'deleted' THEN COALESCE(deleted_at, pg_catalog.now()) END
              WHERE id = $1",
        ),
        &[id.into(), next.as_str().into(), reason.into()],
    )
}

pub fn find(tenant: &Key) -> Result<Option<Uuid>, TenancyError> {
    Ok(cache::find(tenant)?.map(|tenant| Uuid::from_bytes(*tenant.id.as_bytes())))
}

fn known(tenant: &Key) -> Result<Uuid, TenancyError> {
    find(tenant)?.ok_or_else(|| TenancyError::UnknownTenant { tenant: tenant.to_string() })
}
