//! The raw hooks of the fence. What they decide is passed in by `_PG_init`, so that arrows still point down.
//!
//! They are installed under shared_preload_libraries only: loaded later, the library would fence some connections and
//! not others.

mod permissions;
mod policies;

use super::guc::Backend;
use crate::model::fence::{Access, Refusal};

/// What the fence decides.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Whether an access that row security would not filter is refused.
    pub admit: fn(&Access) -> Result<(), Refusal>,
}

static RULES: Backend<Option<Rules>> = Backend::new(None);

/// Installs the hooks; called once, from `_PG_init`.
pub fn install(rules: Rules) {
    RULES.set(Some(rules));
    permissions::install();
    policies::install();
}

/// Whether the hooks are in place.
pub fn are_installed() -> bool {
    RULES.get().is_some()
}
