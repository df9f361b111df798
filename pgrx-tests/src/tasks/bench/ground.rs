//! The ground for what the hooks cost: two servers with the same data, one of which has the library preloaded.

use std::cell::RefCell;

use anyhow::Result;
use postgres::Client;

use super::{
    stand::{APP, SETTINGS, STOCK, connect, psql, script_text},
    valgrind,
};
use crate::{
    cluster::{Cluster, SUPERUSER},
    process::Guarded,
    progress::step,
    server::Server,
};

/// The database with a protected and an unprotected bank.
pub const FENCE: &str = "fence";
/// A copy of it with a thousand protected tables more.
pub const MANY: &str = "many";

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preload {
    No,
    Yes,
}

pub struct Ground {
    /// Run instead of the clusters' own servers while instructions are counted; end before the clusters' files go.
    counting: RefCell<Vec<Guarded>>,
    clusters: [Cluster; 2],
}

impl Ground {
    pub fn build(server: &Server) -> Result<Self> {
        let preloaded = ("shared_preload_libraries", "pg_tenancy");
        let clusters = step("starting two servers, one with the library preloaded", || {
            Ok([Cluster::launch(server, SETTINGS)?, Cluster::launch(server, &[SETTINGS, &[preloaded]].concat())?])
        })?;
        let ground = Self { counting: RefCell::default(), clusters };
        step("filling them", || ground.clusters.iter().try_for_each(fill))?;
        Ok(ground)
    }

    pub fn connect(&self, preload: Preload, database: &str, strict: bool) -> Result<Client> {
        let role = if strict { format!("{APP}_strict") } else { APP.to_owned() };
        connect(&self.clusters[preload as usize], &role, database)
    }

    pub fn superuser(&self, preload: Preload, database: &str) -> Result<Client> {
        connect(&self.clusters[preload as usize], SUPERUSER, database)
    }

    /// Goes on under valgrind, which leaves its figures in `folder`.
    pub fn count_instructions(&self, folder: &std::path::Path) -> Result<()> {
        let mut counting = self.counting.borrow_mut();
        if counting.is_empty() {
            for cluster in &self.clusters {
                counting.push(valgrind::take_over(cluster, folder, &[FENCE, MANY, STOCK])?);
            }
        }
        Ok(())
    }
}

fn fill(cluster: &Cluster) -> Result<()> {
    let run = |database: &str, text: &str| psql(cluster, database, text, &[]);
    run(STOCK, "CREATE DATABASE fence")?;
    run(FENCE, &script_text("fence.sql")?)?;
    run(STOCK, "CREATE SCHEMA home AUTHORIZATION :app; CREATE DATABASE many TEMPLATE fence")?;
    run(MANY, &script_text("many.sql")?)
}
