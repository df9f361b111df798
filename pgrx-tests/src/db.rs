//! A database of a test's own, and real login roles: what isolates is proven with them, never as superuser.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use postgres::{Config, Error};

use crate::{
    blame::must,
    cluster::{Cluster, SUPERUSER},
    names::{quote_ident, unique},
    session::{Session, describe},
};

/// A handle; clones and sessions share the database, which goes with the last of them, and its roles with it.
#[derive(Debug, Clone)]
pub struct Db(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cluster: Cluster,
    name: String,
    roles: Mutex<Vec<Role>>,
    /// The primary's handle, when this is the database's image on a standby.
    origin: Option<Db>,
}

/// A login role. `Display` is the quoted identifier, so `format!("GRANT ... TO {role}")` is right whatever its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    name: String,
}

impl Role {
    /// The name as it is, for a parameter or a connection.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote_ident(&self.name))
    }
}

#[expect(clippy::new_without_default, reason = "it makes a database on a server; nobody should get that by default")]
impl Db {
    /// A database with the extension on the shared cluster.
    pub fn new() -> Self {
        Cluster::shared().db()
    }

    /// A database without the extension on the shared cluster.
    pub fn bare() -> Self {
        Cluster::shared().bare_db()
    }

    pub(crate) fn create(cluster: Cluster, template: Option<&str>) -> Self {
        let name = unique("t");
        let template = template.map(|template| format!(" TEMPLATE {}", quote_ident(template))).unwrap_or_default();
        cluster.superuser().run(&format!("CREATE DATABASE {}{template}", quote_ident(&name)));
        Self(Arc::new(Inner { cluster, name, roles: Mutex::new(Vec::new()), origin: None }))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    /// The same database on a standby of its cluster. Not ours to drop there: replication does.
    pub fn on(&self, standby: &Cluster) -> Self {
        Self(Arc::new(Inner {
            cluster: standby.clone(),
            name: self.0.name.clone(),
            roles: Mutex::new(Vec::new()),
            origin: Some(self.clone()),
        }))
    }

    /// A new session of the superuser.
    #[track_caller]
    pub fn admin(&self) -> Session {
        must(self.try_login_as(SUPERUSER, |_| {}).map_err(|error| describe(&error)))
    }

    /// A login role of a name that no other test has; `attributes` as in CREATE ROLE ("BYPASSRLS", or "").
    #[track_caller]
    pub fn role(&self, name_hint: &str, attributes: &str) -> Role {
        let role = Role { name: unique(name_hint) };
        self.admin().run(&format!("CREATE ROLE {role} LOGIN {attributes}"));
        self.0.roles.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(role.clone());
        role
    }

    /// A new session of that role.
    #[track_caller]
    pub fn login(&self, role: &Role) -> Session {
        must(self.try_login(role, |_| {}).map_err(|error| format!("{role} cannot log in: {}", describe(&error))))
    }

    /// A new session with changed connection parameters (`config.options("-c ...")`), which the server may refuse.
    pub fn try_login(&self, role: &Role, adjust: impl FnOnce(&mut Config)) -> Result<Session, Error> {
        self.try_login_as(role.name(), adjust)
    }

    fn try_login_as(&self, name: &str, adjust: impl FnOnce(&mut Config)) -> Result<Session, Error> {
        let mut config = self.0.cluster.config(name, &self.0.name);
        adjust(&mut config);
        Ok(Session::open(config)?.keeping(self.clone()))
    }

    /// `psql`, `pg_dump` and the like, aimed at this database as superuser.
    pub fn program(&self, name: &str) -> std::process::Command {
        let mut command = self.0.cluster.program(name);
        command.env("PGDATABASE", &self.0.name);
        command
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.origin.is_some() {
            return;
        }
        // A failing test unwinds through here; a second panic would hide its message.
        let roles = std::mem::take(self.roles.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let database = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_ident(&self.name));
        let statements =
            std::iter::once(database).chain(roles.iter().map(|role| format!("DROP ROLE IF EXISTS {role}")));
        match Session::open(self.cluster.config(SUPERUSER, "postgres")) {
            Ok(superuser) => {
                for statement in statements {
                    if let Err(error) = superuser.try_run(&statement) {
                        eprintln!("{statement}: {}", describe(&error));
                    }
                }
            }
            Err(error) => eprintln!("{} stays behind: {error}", self.name),
        }
    }
}
