//! THREATS (d): what plans, statistics, activity views and shared name spaces tell of other tenants.

use crate::stage::{Attacker, Stage, stories};

stories![
    d09_the_catalog_tells_how_many_rows_a_table_has,
    d20_the_places_of_own_rows_tell_how_many_were_written_between,
];

/// `count` more letters of blue's, whom nobody else should be able to count.
fn blue_writes(stage: &Stage, from: i32, count: i32) {
    stage.db.admin().run(&format!(
        "INSERT INTO letters SELECT n, '{}', 'blue''s common value' FROM generate_series({from}, {}) n",
        stage.blue.id,
        from + count - 1
    ));
}

fn d09_the_catalog_tells_how_many_rows_a_table_has(stage: &Stage) {
    blue_writes(stage, 100, 498);
    stage.db.admin().run("ANALYZE letters");
    let session = stage.as_red();
    session.holds_or_sees(stage.holds("D09"), "SELECT reltuples FROM pg_class WHERE relname = 'letters'", &["500"]);
}

fn d20_the_places_of_own_rows_tell_how_many_were_written_between(stage: &Stage) {
    let session = stage.as_red();
    session.run("INSERT INTO letters (id, item) VALUES (10, 'before'); COMMIT");
    blue_writes(stage, 100, 5);
    session.begin_as("red");
    session.run("INSERT INTO letters (id, item) VALUES (11, 'after')");
    let places =
        "SELECT string_agg(split_part(trim(ctid::text, '()'), ',', 2), ' ' ORDER BY id) FROM letters WHERE id > 9";
    session.holds_or_sees(stage.holds("D20"), places, &["3 9"]);
}
