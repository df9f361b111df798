//! Which relations and functions of the server show what other sessions do, or how much other tenants have.

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Relation,
    Function,
}

impl Kind {
    /// The name in `tenancy_internal.revoked_catalogs`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relation => "relation",
            Self::Function => "function",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Relation, Self::Function].into_iter().find(|kind| kind.name() == name)
    }
}

/// Whether a relation or function of `pg_catalog`, or of an extension, shows or reaches other sessions, or counts what
/// all tenants have.
///
/// What describes the schema is not among them (`pg_class`, `pg_policy`, `pg_statistic_ext`, ...): drivers, ORMs and psql
/// live on it. Neither is `pg_settings`, which is the session's own.
pub fn tells_of_others(kind: Kind, name: &str, extension: Option<&str>) -> bool {
    match (extension, kind) {
        (Some(extension), _) => EXTENSIONS.contains(&extension),
        (None, Kind::Relation) => {
            RELATIONS.contains(&name) || name.starts_with("pg_stat_") || name.starts_with("pg_statio_")
        }
        (None, Kind::Function) => FUNCTIONS.contains(&name) || name.starts_with("pg_stat_get_"),
    }
}

/// Besides `pg_stat_*` and `pg_statio_*`, of which each major adds some.
const RELATIONS: [&str; 8] = [
    "pg_cursors",
    "pg_locks",
    "pg_prepared_statements",
    "pg_prepared_xacts",
    "pg_replication_slots",
    "pg_stats",
    "pg_stats_ext",
    "pg_stats_ext_exprs",
];

/// Besides `pg_stat_get_*`.
const FUNCTIONS: [&str; 18] = [
    "pg_blocking_pids",
    "pg_cancel_backend",
    "pg_cursor",
    "pg_database_size",
    "pg_get_replication_slots",
    "pg_indexes_size",
    "pg_isolation_test_session_is_blocked",
    "pg_listening_channels",
    "pg_lock_status",
    "pg_notification_queue_usage",
    "pg_prepared_statement",
    "pg_prepared_xact",
    "pg_relation_size",
    "pg_safe_snapshot_blocking_pids",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_terminate_backend",
    "pg_total_relation_size",
];

/// Extensions that keep texts, plans, locks or waits of all sessions.
const EXTENSIONS: [&str; 7] = [
    "pg_qualstats",
    "pg_stat_kcache",
    "pg_stat_monitor",
    "pg_stat_statements",
    "pg_store_plans",
    "pg_wait_sampling",
    "pgrowlocks",
];

/// The views of schema `tenancy` that show a session's own part.
pub const REPLACEMENTS: [&str; 4] = ["stat_activity", "locks", "prepared_statements", "cursors"];

/// The view of schema `tenancy` that shows the session's own part, where there is one.
pub fn replacement(name: &str) -> Option<&'static str> {
    match name {
        "pg_locks" | "pg_lock_status" => Some("locks"),
        "pg_prepared_statements" | "pg_prepared_statement" => Some("prepared_statements"),
        "pg_cursors" | "pg_cursor" => Some("cursors"),
        "pg_stat_activity" | "pg_stat_get_activity" => Some("stat_activity"),
        _ if name.starts_with("pg_stat_get_backend_") => Some("stat_activity"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_other_sessions_is_taken() {
        for name in ["pg_stat_activity", "pg_statio_user_tables", "pg_stats", "pg_stat_of_a_major_to_come", "pg_locks"]
        {
            assert!(tells_of_others(Kind::Relation, name, None), "{name}");
        }
        for name in ["pg_stat_get_activity", "pg_stat_get_live_tuples", "pg_relation_size", "pg_lock_status"] {
            assert!(tells_of_others(Kind::Function, name, None), "{name}");
        }
        assert!(tells_of_others(Kind::Relation, "pg_stat_statements", Some("pg_stat_statements")));
        assert!(tells_of_others(Kind::Function, "anything", Some("pg_stat_statements")));
    }

    #[test]
    fn what_describes_the_schema_stays() {
        for name in ["pg_class", "pg_policies", "pg_statistic_ext", "pg_settings", "pg_indexes", "pg_sequences"] {
            assert!(!tells_of_others(Kind::Relation, name, None), "{name}");
        }
        for name in ["pg_get_indexdef", "pg_table_is_visible", "pg_backend_pid", "pg_stat_clear_snapshot", "now"] {
            assert!(!tells_of_others(Kind::Function, name, None), "{name}");
        }
        assert!(!tells_of_others(Kind::Relation, "pg_stat_mine", Some("postgis")));
    }

    #[test]
    fn each_replacement_has_what_it_stands_for() {
        let named = ["pg_stat_activity", "pg_locks", "pg_prepared_statements", "pg_cursors"].map(replacement);
        assert_eq!(named.map(Option::unwrap), REPLACEMENTS);
        assert_eq!(replacement("pg_stat_get_backend_activity"), Some("stat_activity"));
        assert_eq!(replacement("pg_stat_user_tables"), None);
    }
}
