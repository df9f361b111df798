//! The raw hooks of the fence. What they decide is passed in by `_PG_init`, so that arrows still point down.
//!
//! They are installed under shared_preload_libraries only: loaded later, the library would fence some connections and
//! not others.

mod catalogs;
mod functions;
mod hygiene;
mod permissions;
mod policies;
mod statements;

pub use functions::name as function_name;

use super::guc::Backend;
use super::settings::{self, ExplainGuard, SessionHygiene};
use super::{exempt, role};
use crate::error::TenancyError;
use crate::model::fence::{Access, Circumstances, Look, Refusal, Statement};

/// What the fence decides.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Whether an access that row security would not filter is refused.
    pub admit: fn(&Access) -> Result<(), Refusal>,
    /// Whether a statement that row security has nothing to say about may run.
    pub permits: fn(&Statement, &Circumstances) -> bool,
    /// Whether somebody may read a catalog that shows other sessions.
    pub shows: fn(&Look) -> bool,
}

static RULES: Backend<Option<Rules>> = Backend::new(None);

/// Installs the hooks; called once, from `_PG_init`.
pub fn install(rules: Rules) {
    RULES.set(Some(rules));
    permissions::install();
    policies::install();
    statements::install();
    functions::install();
}

/// Whether the hooks are in place.
pub fn are_installed() -> bool {
    RULES.get().is_some()
}

/// Refuses `statement` where the rules do not permit it.
fn permit(statement: &Statement) -> Result<(), TenancyError> {
    let Some(rules) = RULES.get() else { return Ok(()) };
    if (rules.permits)(statement, &circumstances()?) {
        return Ok(());
    }
    Err(TenancyError::Denied { role: role::current_role(), statement: statement.clone() })
}

fn circumstances() -> Result<Circumstances, TenancyError> {
    let current = role::current();
    let (explain, hygiene) = (settings::explain_guard(), settings::session_hygiene());
    Ok(Circumstances {
        is_bound: !role::is_privileged(current) && !exempt::is_exempt(current)?,
        is_superuser: role::is_superuser(current),
        is_strict: settings::is_strict(),
        guards_explain: explain == ExplainGuard::All,
        guards_analyze: matches!(explain, ExplainGuard::Analyze | ExplainGuard::All),
        keeps_clean: hygiene != SessionHygiene::Off,
        refuses_leftovers: hygiene == SessionHygiene::Refuse,
    })
}
