//! Two tenants, their letters, a role that runs the application, and how the server knows the library.

use std::sync::OnceLock;

use crate::rows;
use pg_tenancy_tests::{Cluster, Db, DbError, Role, Session, Tenant};

/// How the library gets into a backend, and how much of it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// By the first call of one of its functions.
    FirstUse,
    /// By session_preload_libraries of the database: for stories about the setting of the tenant alone.
    Session,
    /// By shared_preload_libraries: the fence stands.
    Shared,
    /// The same with `tenancy.strictness = strict`.
    Strict,
}

impl Setting {
    /// Whether the hooks of the fence are in force.
    pub fn has_fence(self) -> bool {
        matches!(self, Self::Shared | Self::Strict)
    }

    /// The server of this setting, one for all stories of the run: a server for each would take longer than all attacks.
    /// It ends with the process.
    pub fn cluster(self) -> Cluster {
        static UNFENCED: OnceLock<Cluster> = OnceLock::new();
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        static STRICT: OnceLock<Cluster> = OnceLock::new();
        let (place, ours, strictness) = match self {
            Self::FirstUse | Self::Session => (&UNFENCED, None, None),
            Self::Shared => (&SHARED, Some("pg_tenancy"), None),
            Self::Strict => (&STRICT, Some("pg_tenancy"), Some(("tenancy.strictness", "strict"))),
        };
        let start = || {
            // What remembers statements is there to be looked at, where the server has it.
            let remembers = Cluster::shared().server().has_library("pg_stat_statements");
            let contrib = remembers.then_some("pg_stat_statements");
            let libraries: Vec<&str> = contrib.into_iter().chain(ours).collect();
            let libraries = libraries.join(",");
            let common = [
                ("shared_preload_libraries", &*libraries),
                ("max_prepared_transactions", "20"),
                ("wal_level", "logical"),
            ];
            let settings: Vec<_> = common.into_iter().chain(strictness).collect();
            Cluster::start(&settings)
        };
        place.get_or_init(start).clone()
    }
}

/// What red may see of `letters`, and what nobody but blue may.
pub const MINE: &str = "red's letter";
pub const CANARY: &str = "blue's secret";

/// Two tenants with one letter each in `letters` (protected) and in `naive` (row security as people write it by hand,
/// with the setting `naive.tenant`).
#[derive(Debug)]
pub struct Stage {
    pub db: Db,
    pub setting: Setting,
    pub owner: Role,
    pub app: Role,
    pub red: Tenant,
    pub blue: Tenant,
}

impl Stage {
    pub fn new(setting: Setting) -> Self {
        Self::on(&setting.cluster(), setting)
    }

    /// On a server of the story's own, for what is nothing for the others.
    pub fn on(cluster: &Cluster, setting: Setting) -> Self {
        let db = cluster.db();
        let (red, blue) = (db.tenant("red"), db.tenant("blue"));
        let (owner, app) = (db.role("owner", ""), db.application("app"));
        let admin = db.admin();
        admin.run(&format!(
            "CREATE TABLE letters (id int PRIMARY KEY, tenant_id uuid NOT NULL, item text NOT NULL);
             CREATE TABLE naive (id int PRIMARY KEY, tenant text NOT NULL, item text NOT NULL);
             ALTER TABLE letters OWNER TO {owner};
             GRANT USAGE ON SCHEMA tenancy TO {owner};
             SELECT tenancy.protect_table('letters');
             ALTER TABLE naive ENABLE ROW LEVEL SECURITY;
             CREATE POLICY naive ON naive USING (tenant = current_setting('naive.tenant', true));
             GRANT SELECT, INSERT, UPDATE, DELETE ON letters, naive TO {app};
             GRANT CREATE ON SCHEMA public TO {app};
             INSERT INTO letters VALUES (1, '{}', '{}'), (2, '{}', '{}');
             INSERT INTO naive SELECT id, CASE id WHEN 1 THEN 'red' ELSE 'blue' END, item FROM letters",
            red.id,
            MINE.replace('\'', "''"),
            blue.id,
            CANARY.replace('\'', "''"),
        ));
        if setting == Setting::Session {
            admin.run(&format!("ALTER DATABASE \"{}\" SET session_preload_libraries = 'pg_tenancy'", db.name()));
        }
        Self { db, setting, owner, app, red, blue }
    }

    /// Whether the attack of that row fails in this setting, as `rows` promises.
    #[track_caller]
    pub fn holds(&self, row: &str) -> bool {
        rows::held(row).is_in(self.setting)
    }

    /// For later connections: a setting of ours that a superuser chose for this database.
    pub fn choose(&self, setting: &str) {
        self.db.admin().run(&format!("ALTER DATABASE {} SET {setting}", self.database()));
    }

    /// A connection of the application, with no tenant.
    #[track_caller]
    pub fn login(&self) -> Session {
        self.db.login(&self.app)
    }

    /// The same with options in its startup packet, which the server may refuse.
    pub fn login_with(&self, options: &str) -> Result<Session, postgres::Error> {
        self.db.try_login(&self.app, |config| {
            config.options(options);
        })
    }

    /// A connection of the application inside red's transaction.
    #[track_caller]
    pub fn as_red(&self) -> Session {
        self.login_as(&self.app, "red")
    }

    /// A connection of that role inside a transaction of that tenant.
    #[track_caller]
    pub fn login_as(&self, role: &Role, tenant: &str) -> Session {
        let session = self.db.login(role);
        session.begin_as(tenant);
        session
    }

    /// The database as an identifier.
    pub fn database(&self) -> String {
        pg_tenancy_tests::quote_ident(self.db.name())
    }
}

/// What an attacker does and what must come of it.
pub trait Attacker {
    fn begin_as(&self, tenant: &str);
    fn refused_inside(&self, sqlstate: &str, sql: &str) -> DbError;
    fn sees_only_red(&self);
    fn sees_only_blue(&self);
    fn sees_no_tenant(&self);
    fn holds_or_sees(&self, holds: bool, sql: &str, leaked: &[&str]);
}

impl Attacker for Session {
    #[track_caller]
    fn begin_as(&self, tenant: &str) {
        self.run(&format!("BEGIN; SELECT tenancy.set_tenant('{tenant}')"));
    }

    /// Refused, and the transaction goes on as it was before.
    #[track_caller]
    fn refused_inside(&self, sqlstate: &str, sql: &str) -> DbError {
        self.run("SAVEPOINT attempt");
        let refusal = self.refused(sqlstate, sql);
        self.run("ROLLBACK TO attempt; RELEASE attempt");
        refusal
    }

    #[track_caller]
    fn sees_only_red(&self) {
        self.sees("SELECT item FROM letters", &[MINE]);
    }

    #[track_caller]
    fn sees_only_blue(&self) {
        self.sees("SELECT item FROM letters", &[CANARY]);
    }

    /// Neither in a transaction of its own nor, if there is one, in the one at hand. Ends it.
    #[track_caller]
    fn sees_no_tenant(&self) {
        self.refused("55000", "SELECT item FROM letters");
        self.run("ROLLBACK");
    }

    /// Where the row holds the statement is refused as forbidden; elsewhere it leaks just this, so that a change is noticed.
    #[track_caller]
    fn holds_or_sees(&self, holds: bool, sql: &str, leaked: &[&str]) {
        if holds {
            let refusal = self.refused("42501", sql);
            assert!(refusal.hint().is_some(), "a refusal says what to do next: {refusal:?}");
            self.run("ROLLBACK");
        } else {
            self.sees(sql, leaked);
        }
    }
}

/// Makes of each story a test in each of the three settings: no preload, preload, preload and strict. With
/// `also with session preload;` in front, in session_preload_libraries too.
macro_rules! stories {
    (also with session preload; $($story:ident),* $(,)?) => {
        crate::stage::stories![$($story),*];
        crate::stage::stories!(@ session_preload, Session, $($story),*);
    };
    ($($story:ident),* $(,)?) => {
        pub const STORIES: &[&str] = &[$(stringify!($story)),*];
        crate::stage::stories!(@ no_preload, FirstUse, $($story),*);
        crate::stage::stories!(@ preload_standard, Shared, $($story),*);
        crate::stage::stories!(@ preload_strict, Strict, $($story),*);
    };
    (@ $module:ident, $setting:ident, $($story:ident),*) => {
        mod $module {
            $(#[test] fn $story() { super::$story(&crate::stage::Stage::new(crate::stage::Setting::$setting)); })*
        }
    };
}
pub(crate) use stories;
