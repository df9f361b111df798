//! A streaming standby of a cluster.

use std::time::Duration;

use anyhow::Result;

use super::{Cluster, data};
use crate::{blame::must, process};

impl Cluster {
    /// A hot standby that follows this cluster by streaming.
    #[track_caller]
    pub fn standby(&self) -> Cluster {
        must(self.try_standby())
    }

    fn try_standby(&self) -> Result<Cluster> {
        let folder = data::Folder::new()?;
        process::output(
            self.program("pg_basebackup")
                .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--wal-method=stream", "--pgdata"])
                .arg(folder.data()),
        )?;
        data::configure(&folder, &[("hot_standby", "on")])?;
        let standby = Cluster::run(self.server(), folder, super::Environment::new())?;
        // Its databases are the primary's, the template among them.
        *standby.0.template.lock().expect("just made") = super::Template::Ready;
        Ok(standby)
    }

    /// Waits until this standby has replayed all that `primary` has written so far.
    #[track_caller]
    pub fn catch_up_with(&self, primary: &Cluster) {
        let written = primary.superuser().value("SELECT pg_catalog.pg_current_wal_lsn()");
        let replayed = format!("SELECT pg_catalog.pg_last_wal_replay_lsn() >= '{written}'");
        let standby = self.superuser();
        must(process::wait_for("the standby to catch up", Duration::from_secs(60), || {
            Ok((standby.value(&replayed) == "t").then_some(()))
        }));
    }
}
