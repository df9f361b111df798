//! Two tenants, their letters, a role that runs the application, and how a backend gets the library.

use pg_tenancy_tests::{Cluster, Db, Role, Session, Tenant};

/// How the library gets into a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preload {
    /// By the first call of one of its functions.
    FirstUse,
    Session,
    Shared,
}

/// What red may see of `letters`, and what nobody but blue may.
pub const MINE: &str = "red's letter";
pub const CANARY: &str = "blue's secret";

/// Two tenants with one letter each in `letters` (protected) and in `naive` (row security as people write it by hand,
/// with the setting `naive.tenant`).
#[derive(Debug)]
pub struct Stage {
    pub db: Db,
    pub preload: Preload,
    pub owner: Role,
    pub app: Role,
    pub red: Tenant,
    pub blue: Tenant,
}

impl Stage {
    pub fn new(db: Db, preload: Preload) -> Self {
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
        if preload == Preload::Session {
            admin.run(&format!("ALTER DATABASE \"{}\" SET session_preload_libraries = 'pg_tenancy'", db.name()));
        }
        Self { db, preload, owner, app, red, blue }
    }

    /// On the run's server, without preload: for attacks to which the library's loading is nothing.
    pub fn plain() -> Self {
        Self::new(Db::new(), Preload::FirstUse)
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
        let session = self.login();
        session.begin_as("red");
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
    fn refused_inside(&self, sqlstate: &str, sql: &str) -> pg_tenancy_tests::DbError;
    fn sees_only_red(&self);
    fn sees_only_blue(&self);
    fn sees_no_tenant(&self);
}

impl Attacker for Session {
    #[track_caller]
    fn begin_as(&self, tenant: &str) {
        self.run(&format!("BEGIN; SELECT tenancy.set_tenant('{tenant}')"));
    }

    /// Refused, and the transaction goes on as it was before.
    #[track_caller]
    fn refused_inside(&self, sqlstate: &str, sql: &str) -> pg_tenancy_tests::DbError {
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
}

/// Makes of each story a test without preload and one with session_preload_libraries, and of all of them one test on a
/// server with shared_preload_libraries.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod without_preload {
            $(#[test] fn $story() { super::$story(&super::Stage::new(pg_tenancy_tests::Db::new(), super::Preload::FirstUse)); })*
        }
        mod session_preload {
            $(#[test] fn $story() { super::$story(&super::Stage::new(pg_tenancy_tests::Db::new(), super::Preload::Session)); })*
        }
        #[test]
        fn all_of_them_with_shared_preload() {
            let cluster = crate::stage::preloaded_cluster();
            for story in [$($story as fn(&Stage)),*] {
                story(&Stage::new(cluster.db(), Preload::Shared));
            }
        }
    };
}
pub(crate) use stories;

/// A server of the test's own that loads the library before any connection.
pub fn preloaded_cluster() -> Cluster {
    Cluster::start(&[("shared_preload_libraries", "pg_tenancy"), ("max_prepared_transactions", "2")])
}
