//! A backend is killed in the middle of a purge, again and again; a server that refuses all it can does not stand in its way.

use crate::world::{World, all, deleted};
use pg_tenancy_tests::{Cluster, Session, cluster::data};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    thread,
    time::{Duration, Instant},
};

const N: i64 = 400;

/// Asks until `ready` has an answer.
#[track_caller]
pub fn wait<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ready() {
            return answer;
        }
        assert!(Instant::now() < until, "it never came");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_purge_is_finished_by_the_next_call() {
    let cluster = Cluster::start(&[data::PRELOADED, ("tenancy.strictness", "strict")]);
    let world = World::new(cluster.db(), N);
    let others = world.rows_where("whose <> 'red'");
    let login = || wait(|| world.db.try_login(&world.steward, |_| {}).ok());
    login().run("SELECT tenancy.delete_tenant('red')");
    let call = |pause| {
        format!("CALL tenancy.purge_tenant('red', 'red', dry_run => false, batch_size => 23, pause_ms => {pause})")
    };
    let watch = |session: &Session| session.rows("SELECT pid, done FROM tenancy.jobs WHERE state = 'running'");

    // Points that lie apart: in tables that are deleted from by batches, by blocks, together, and near partitions.
    let mut left = all(N);
    for (point, how) in [(30, "cancel"), (700, "kill"), (400, "kill"), (1500, "kill"), (300, "kill")] {
        let (purger, watcher) = (login(), login());
        let purge = thread::spawn(move || purger.try_run(&call(20)).map_err(|error| error.to_string()));
        let pid = wait(|| {
            let line = watch(&watcher).pop()?;
            let (pid, done) = line.split_once('|')?;
            (done.parse::<i64>().ok()? >= point).then(|| pid.to_owned())
        });
        if how == "cancel" {
            world.dba.run(&format!("SELECT pg_cancel_backend({pid})"));
        } else {
            let pid = Pid::from_raw(pid.parse().expect("a pid")).expect("a process");
            kill_process(pid, Signal::KILL).expect("it is ours to kill");
            // The server ends all sessions before it lets new ones in.
            wait(|| watcher.try_run("SELECT").err());
        }
        assert!(purge.join().expect("no panic").is_err(), "it was over before {point} rows were gone");
        let again = login();
        let state = || again.value("SELECT state FROM tenancy.jobs ORDER BY id DESC LIMIT 1");
        wait(|| (state() == "interrupted").then_some(()));
        again.refused("55000", "SELECT tenancy.undelete_tenant('red')");
        let now = world.left();
        assert!(now < left && now > 0, "{now} of {left} rows are left");
        left = now;
        assert_eq!(world.rows_where("whose <> 'red'"), others);
    }
    let last = login();
    last.run(&call(0));
    assert_eq!(world.left(), 0);
    assert_eq!(world.rows_where("whose <> 'red'"), others);
    last.sees("SELECT rows, runs, is_intact FROM tenancy.purge_certificates", &[&format!("{}|6|t", deleted(N))]);
    last.sees("SELECT count(*), count(*) FILTER (WHERE state = 'done') FROM tenancy.jobs", &["6|1"]);
}
