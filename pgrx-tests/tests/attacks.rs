//! The attacks of THREATS.md on context and isolation, as real login roles against canary rows of another tenant.
//!
//! A test is named after its row. It asserts the SQLSTATE of the refusal, or that no foreign row came out; where the
//! attack succeeds on row security written by hand, the test shows that first, so that it can fail.
//!
//! Rows that Foundation leaves to others, and hence have no test here:
//!
//! | rows | why | who |
//! |---|---|---|
//! | A01 A02 without preload, before anything of ours ran in the connection | guc.c keeps no trace of the first value of a setting it does not know yet | `tenancy.set_tenant`, or session_preload_libraries |
//! | A09 the other way round: a role takes off the pin that ALTER ROLE put on it (`ALTER ROLE self RESET ALL`) | guc.c asks no hook about RESET | ALTER DATABASE pins for good; Fence |
//! | A29 A31 A32 A33 A41, D22 D27 | what the last client of a pooled connection left there: held cursors, temporary tables, sequences, LISTEN | DISCARD ALL now, Fence later |
//! | B03 B04 B07 B08 | superuser and BYPASSRLS pass every policy; `verify_context()` and `grant_usage` say so | Fence |
//! | B14 B19 B24 B29 B30 B31 | materialized views, planted triggers, large objects, decoding, publications | Fence |
//! | C19 C20 C26 | sequences and locks that all tenants share | integrity |
//! | D07-D11 D15-D20 D25 D26 | plans, statistics, activity, shared name spaces | Fence, documentation |
//! | E01 E04 E05 E08 E09 E12 E17-E22 E25-E27 E30 E31 E34, E32 for writes | what an owner or superuser changes afterwards; `is_enforced` and the plan show it | Fence |
//! | E28 | dump and restore | tests/dump.rs |

// A test's root module looks for its modules beside itself, where tests/context.rs is another test.
#[path = "attacks/catalogs.rs"]
mod catalogs;
#[path = "attacks/context.rs"]
mod context;
#[path = "attacks/ddl.rs"]
mod ddl;
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
