//! How the server knows the library.

use std::sync::OnceLock;

use pg_tenancy_tests::Cluster;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// By the first call of one of its functions.
    FirstUse,
    /// By shared_preload_libraries: the fence stands.
    Shared,
    /// The same with `tenancy.strictness = strict`.
    Strict,
}

impl Setting {
    /// The server of this setting, one for all tests of the run.
    pub fn cluster(self) -> Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        static STRICT: OnceLock<Cluster> = OnceLock::new();
        let preload = ("shared_preload_libraries", "pg_tenancy");
        match self {
            Self::FirstUse => Cluster::shared(),
            Self::Shared => SHARED.get_or_init(|| Cluster::start(&[preload])).clone(),
            Self::Strict => STRICT.get_or_init(|| Cluster::start(&[preload, ("tenancy.strictness", "strict")])).clone(),
        }
    }
}

/// Makes of each story a test in each setting.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        crate::stage::stories!(@ no_preload, FirstUse, $($story),*);
        crate::stage::stories!(@ preload_standard, Shared, $($story),*);
        crate::stage::stories!(@ preload_strict, Strict, $($story),*);
    };
    (@ $module:ident, $setting:ident, $($story:ident),*) => {
        mod $module {
            $(#[test] fn $story() { super::$story(crate::stage::Setting::$setting); })*
        }
    };
}
pub(crate) use stories;
