//! The demo goes as it is told: every promised refusal comes, and no other.

use pg_tenancy_tests::{Cluster, cluster::data, tasks::narrate, workspace};

#[test]
fn the_demo_goes_as_told() {
    // A server of its own: the scripts make roles and databases of plain names, as a reader would.
    let cluster = Cluster::start(&[data::PRELOADED]);
    cluster.superuser().run("CREATE DATABASE demo");
    let scripts = narrate::scripts(&workspace::root().join("pgrx-tests/examples")).expect("the demo has scripts");
    let mut surprises = Vec::new();
    let mut shown = Vec::new();
    for script in scripts {
        let mut psql = narrate::psql(cluster.server()).expect("PATH can be joined");
        psql.envs(cluster.libpq_environment()).env("PGDATABASE", "demo");
        surprises.extend(narrate::play(&mut psql, &script, &mut shown).expect("psql plays it"));
    }
    assert!(surprises.is_empty(), "{surprises:#?}\n{}", String::from_utf8_lossy(&shown));
}
