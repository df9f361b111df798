//! The attacks of THREATS.md, as real login roles against canary rows of another tenant.
//!
//! `rows.rs` is the table: what each row of THREATS.md is worth, and in which settings its attack fails. A file holds the
//! stories of one kind of attack. Its `stories!` makes of each a test in every setting: no preload, preload, and preload
//! with `tenancy.strictness = strict` (`stage.rs`). So `cargo xtask test --kind client b14` runs what is named after B14.
//!
//! A story's name begins with the rows that it is about, if any: `b14_e20_...`. It shows the attack succeed first, on row
//! security as people write it by hand or where the guard is off, so that it can fail; then that it is refused, by SQLSTATE,
//! or brings no foreign row; then that the legitimate use beside it works. Where a row does not hold in every setting the
//! story asks `Stage::holds`, and elsewhere asserts the leak itself. `rows.rs` fails when a row has no story, when more than
//! what is listed there leaks in strict mode, and when docs/security.md says something else.

// A test's root module looks for its modules beside itself, where tests/context.rs is another test.
#[path = "attacks/catalogs.rs"]
mod catalogs;
#[path = "attacks/context.rs"]
mod context;
#[path = "attacks/ddl.rs"]
mod ddl;
#[path = "attacks/deputy.rs"]
mod deputy;
#[path = "attacks/drift.rs"]
mod drift;
#[path = "attacks/fence.rs"]
mod fence;
#[path = "attacks/hostile.rs"]
mod hostile;
#[path = "attacks/integrity.rs"]
mod integrity;
#[path = "attacks/keys.rs"]
mod keys;
#[path = "attacks/legitimate.rs"]
mod legitimate;
#[path = "attacks/lockdown.rs"]
mod lockdown;
#[path = "attacks/pins.rs"]
mod pins;
#[path = "attacks/privilege.rs"]
mod privilege;
#[path = "attacks/rows.rs"]
mod rows;
#[path = "attacks/sessions.rs"]
mod sessions;
#[path = "attacks/side_channels.rs"]
mod side_channels;
#[path = "attacks/signed.rs"]
mod signed;
#[path = "attacks/stage.rs"]
mod stage;

/// Every story of every file, each of which runs in the three settings.
const STORIES: &[&[&str]] = &[
    catalogs::STORIES,
    context::STORIES,
    ddl::STORIES,
    deputy::STORIES,
    drift::STORIES,
    fence::STORIES,
    hostile::STORIES,
    integrity::STORIES,
    keys::STORIES,
    lockdown::STORIES,
    legitimate::STORIES,
    pins::STORIES,
    privilege::STORIES,
    sessions::STORIES,
    side_channels::STORIES,
    signed::STORIES,
];
