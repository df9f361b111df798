//! How refusals read.

use super::*;
use crate::model::setting::Place;

#[test]
fn a_long_name_is_cut_in_messages() {
    let message = TenancyError::MalformedTenant { text: "ü".repeat(1_000_000) }.face().message;
    assert!(message.chars().count() < 150, "{message}");
}

/// STYLE 6 and invariant 11: message in lower case without a full stop, hint a whole sentence.
#[test]
fn a_refusal_reads_like_postgresql() {
    let column = Ident::new("tenant_id").unwrap();
    let table = QualifiedName { schema: Ident::new("public").unwrap(), name: Ident::new("orders").unwrap() };
    let refusals = [
        TenancyError::MissingArgument { argument: "code" },
        TenancyError::NoTenant { ended: true },
        TenancyError::NoTenant { ended: false },
        TenancyError::StaleTenant { tenant: "red".into() },
        TenancyError::SecondTenant { first: "red".into(), second: "blue".into() },
        TenancyError::UnknownTenant { tenant: "red".into() },
        TenancyError::NoTenantColumn { table: table.clone(), column: column.clone() },
        TenancyError::RowsWithoutTenant { table: table.clone(), column: column.clone(), rows: 1 },
        TenancyError::NotProtected { table: table.clone() },
        TenancyError::UnsignedTenant { tenant: "red".into() },
        TenancyError::ForbiddenOptions,
        TenancyError::InvalidSetting(InvalidSetting {
            name: "tenancy.context_mode".into(),
            value: "sined".into(),
            place: Place::File,
            wanted: Some("open or signed".into()),
        }),
        TenancyError::LoopOfAnother { former: "red".into(), tenant: "blue".into() },
        TenancyError::BoundRole { bound: "red".into(), second: "blue".into() },
        TenancyError::ExpiredContext { tenant: "red".into() },
        TenancyError::MalformedToken { what: "It has no three parts." },
        TenancyError::UnknownTokenKey { kid: Some("k".into()), active: 1 },
        TenancyError::UnknownTokenKey { kid: None, active: 0 },
        TenancyError::UnknownTokenKey { kid: None, active: 2 },
        TenancyError::NoNonce,
        TenancyError::MalformedSigningKey { algorithm: "HS256", what: "The secret is shorter than 32 bytes." },
        TenancyError::MalformedKid,
        TenancyError::DuplicateSigningKey { kid: "k".into() },
        TenancyError::UnknownSigningKey { kid: "k".into() },
        TenancyError::NoKeyToSign { kid: None },
        TenancyError::TokenLifeTime { seconds: 0, most: 0 },
        TenancyError::RoleBoundElsewhere { role: "app".into(), tenant: "red".into() },
        TenancyError::RoleNotBound { role: "app".into() },
        TenancyError::StrangersFunction { function: "f".into(), rights: "a superuser".into() },
        TenancyError::MutedTrigger { function: "f".into() },
        TenancyError::TableHasRule { table: table.clone(), rule: column.clone() },
        TenancyError::TriggerProtocol { function: "f".into(), expected: "x".into(), is_event_trigger: false },
    ];
    for refusal in refusals {
        let face = refusal.face();
        let first = face.message.chars().next().unwrap();
        assert!(!first.is_uppercase() && !face.message.ends_with('.'), "{}", face.message);
        let hint = face.hint.expect("every refusal says what to do next");
        assert!(hint.ends_with('.') && !hint.starts_with(char::is_lowercase) || hint.starts_with("tenancy."), "{hint}");
    }
}
