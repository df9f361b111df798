//! PostgreSQL's own regression suite, on a server without us and on servers with us: what it prints must be the same, but
//! for differences that `pgrx-tests/core/` shows and explains.
//!
//! All runs are ours, so the environment's own failures (locale, a minor's wording) stand on all sides and cancel out.

mod differences;
mod source;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use self::{
    differences::{Difference, Place},
    source::{Modules, Suite},
};
use super::{counted::Counted, setup::Ready};
use crate::{
    cluster::{Cluster, PORT, SUPERUSER},
    process,
    progress::{paint, say, step},
    session::Session,
    workspace,
};

/// Of the tests that fail without us: more, and this environment is not one to compare in.
const MOST_STOCK_FAILURES: usize = 20;

/// A server of the comparison. Each setting must leave PostgreSQL as it was for whoever has no protected table.
struct Setting {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    has_extension: bool,
}

const STOCK: Setting = Setting { name: "stock", settings: &[], has_extension: false };
const OURS: [Setting; 2] = [
    Setting { name: "loaded", settings: &[("shared_preload_libraries", "pg_tenancy")], has_extension: true },
    Setting {
        name: "strict",
        settings: &[("shared_preload_libraries", "pg_tenancy"), ("tenancy.strictness", "strict")],
        has_extension: true,
    },
];

/// What came of it.
pub enum Played {
    Compared(Counted),
    /// There is no suite to play, and why.
    Skipped(anyhow::Error),
}

/// Plays the suite, from `tree` if given: a PostgreSQL source tree of the server's major.
pub fn run(ready: &Ready, tree: Option<&Path>, filter: &str, accept: bool) -> Result<Played> {
    let suite = match source::suite(ready.server.major, tree) {
        Ok(suite) => suite,
        Err(error) if tree.is_none() => return Ok(Played::Skipped(error)),
        Err(error) => return Err(error),
    };
    let modules = source::modules(&ready.server, &suite)?;
    let stock = play(ready, &suite, &modules, &STOCK)?;
    if stock.failed.len() > MOST_STOCK_FAILURES {
        bail!("without pg_tenancy {} tests fail here: {}", stock.failed.len(), stock.failed.join(" "));
    }
    say(format_args!("without pg_tenancy fail here: {}", names(&stock.failed)));
    let mut counted = Counted { passed: true, tests: 0 };
    for setting in &OURS {
        let ours = play(ready, &suite, &modules, setting)?;
        say(format_args!("with pg_tenancy ({}) fail here: {}", setting.name, names(&ours.failed)));
        let compared =
            compare(Place { major: ready.server.major, setting: setting.name }, &stock, &ours, filter, accept)?;
        counted = Counted { passed: counted.passed && compared.passed, tests: counted.tests + compared.tests };
    }
    Ok(Played::Compared(counted))
}

/// A suite that has been played.
struct Results {
    folder: PathBuf,
    /// The tests whose output is not what PostgreSQL's authors expect.
    failed: Vec<String>,
    /// Names of the functions, relations and event triggers that are the extension's.
    own: HashSet<String>,
}

const OWN_NAMES: &str = "SELECT coalesce(p.proname, c.relname, e.evtname)::text FROM pg_depend d
    LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    LEFT JOIN pg_event_trigger e ON d.classid = 'pg_event_trigger'::regclass AND e.oid = d.objid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
      AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_tenancy')
      AND coalesce(p.oid, c.oid, e.oid) IS NOT NULL";

fn play(ready: &Ready, suite: &Suite, modules: &Modules, setting: &Setting) -> Result<Results> {
    let out = workspace::state()?.join("core").join(setting.name);
    workspace::remove(&out)?;
    // The server itself writes files there, too.
    workspace::folder_of_server_user(&out)?;
    let cluster = Cluster::launch(&ready.server, setting.settings)?;
    let mut command = process::as_server_user(ready.server.test_program("regress/pg_regress")?)?;
    command
        .arg(format!("--bindir={}", ready.server.bindir.display()))
        .arg(format!("--host={}", cluster.sockets().display()))
        .arg(format!("--port={PORT}"))
        .arg(format!("--user={SUPERUSER}"))
        .arg(format!("--dlpath={}", modules.folder.display()))
        .arg(format!("--inputdir={}", suite.folder.display()))
        .arg(format!("--outputdir={}", out.display()))
        .arg(format!("--schedule={}", suite.folder.join("parallel_schedule").display()))
        .arg("--max-concurrent-tests=20");
    if process::output(Command::new(command.get_program()).arg("--help"))?.contains("--expecteddir") {
        command.arg(format!("--expecteddir={}", suite.folder.display()));
    }
    let mut own = HashSet::new();
    if setting.has_extension {
        // The suite's own database is a copy of template0; those that its tests make are copies of template1.
        cluster.create_extension("template1")?;
        let rows = Session::open(cluster.config(SUPERUSER, "template1"))?.try_rows(OWN_NAMES)?;
        own.extend(rows);
        command.arg("--load-extension=pg_tenancy");
    }
    let what = format!("PostgreSQL's own suite of {}, {}", suite.version, setting.name);
    let played = step(&what, || {
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", process::shown(&command)))
    })?;
    let diffs = out.join("regression.diffs");
    if !played.status.success() && !diffs.is_file() {
        bail!(
            "{what} was not played: {}{}",
            String::from_utf8_lossy(&played.stdout),
            String::from_utf8_lossy(&played.stderr)
        );
    }
    let failed = if played.status.success() { Vec::new() } else { failed(&fs::read_to_string(&diffs)?) };
    Ok(Results { folder: out.join("results"), failed, own })
}

/// The tests whose diffs pg_regress has written down: `diff -U3 … /results/boolean.out`.
fn failed(diffs: &str) -> Vec<String> {
    let stem = |line: &str| Path::new(line).file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    diffs.lines().filter(|line| line.starts_with("diff ")).filter_map(stem).collect()
}

fn compare(place: Place, stock: &Results, ours: &Results, filter: &str, accept: bool) -> Result<Counted> {
    let mut counted = Counted { passed: true, tests: 0 };
    for test in tests(&stock.folder)? {
        if !test.contains(filter) {
            continue;
        }
        counted.tests += 1;
        let file = format!("{test}.out");
        let found = Difference::between(&stock.folder.join(&file), &ours.folder.join(&file), &ours.own)?;
        if accept {
            differences::accept(place, &test, &found)?;
            continue;
        }
        let explained = differences::explained(place, &test)?;
        if found != explained {
            counted.passed = false;
            println!("core/{test} ... {}", paint("31", "FAILED"));
            println!("with pg_tenancy it differs so:\n{found}");
            if !explained.is_none() {
                println!("and pgrx-tests/core/ explains:\n{explained}");
            }
        } else if !found.is_none() {
            println!("core/{test} ... {} with the difference explained", paint("32", "ok"));
        }
    }
    Ok(counted)
}

/// The tests that were played, in order.
fn tests(results: &Path) -> Result<Vec<String>> {
    let mut tests = Vec::new();
    for entry in fs::read_dir(results).with_context(|| results.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "out")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            tests.push(stem.to_owned());
        }
    }
    tests.sort();
    Ok(tests)
}

fn names(tests: &[String]) -> String {
    if tests.is_empty() { "none".to_owned() } else { tests.join(" ") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn failed_tests_are_read_from_the_headers_of_their_diffs() {
        let diffs = "diff -U3 /e/expected/plpgsql.out /o/results/plpgsql.out\n--- /e\n+++ /o\n@@ -1 +1 @@\n-diff\n";
        assert_eq!(super::failed(diffs), ["plpgsql"]);
    }
}
