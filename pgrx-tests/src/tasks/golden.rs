//! Golden sessions: PostgreSQL's own pg_regress plays a file and compares what a user would see.
//! Each file has its own database, so numbers and order in it do not depend on the others.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::counted::Counted;
use crate::{
    cluster::{Cluster, PORT, SUPERUSER, data},
    process,
    progress::{paint, say},
    workspace,
};

/// psql sessions, or sessions that race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suite {
    pub name: &'static str,
    /// Folder and ending of the input files.
    input: &'static str,
    ending: &'static str,
    program: &'static str,
}

pub const REGRESS: Suite = Suite { name: "regress", input: "sql", ending: "sql", program: "regress/pg_regress" };
pub const ISOLATION: Suite =
    Suite { name: "isolation", input: "specs", ending: "spec", program: "isolation/pg_isolation_regress" };

/// How a file begins that is to be played on a server with the library in shared_preload_libraries.
const NEEDS_FENCE: &str = "-- shared_preload_libraries";

impl Suite {
    fn folder(self) -> PathBuf {
        workspace::root().join("pgrx-tests").join(self.name)
    }

    pub fn exists(self) -> bool {
        self.folder().is_dir()
    }

    /// The names of the files that match, in order.
    pub fn files(self, filter: &str) -> Result<Vec<String>> {
        let all = stems(&self.folder().join(self.input), self.ending)?;
        if all.is_empty() {
            bail!("{} has no {}/*.{}; an empty shell tests nothing", self.folder().display(), self.input, self.ending);
        }
        for expected in stems(&self.folder().join("expected"), "out")? {
            // pg_regress takes any of x.out, x_0.out … x_9.out: majors may differ in their wording.
            let variant = expected.rsplit_once('_').filter(|(_, n)| n.len() == 1 && n.as_bytes()[0].is_ascii_digit());
            if !all.contains(&expected) && !variant.is_some_and(|(base, _)| all.iter().any(|name| name == base)) {
                bail!("{}/expected/{expected}.out belongs to no {} file", self.folder().display(), self.input);
            }
        }
        Ok(all.into_iter().filter(|name| name.contains(filter)).collect())
    }

    /// Plays the files; `accept` makes what they say now the expectation.
    pub fn run(self, cluster: &Cluster, files: &[String], accept: bool) -> Result<Counted> {
        let program = cluster.server().test_program(self.program)?;
        let mut passed = true;
        let mut fenced = None;
        for file in files {
            let input = self.folder().join(self.input).join(format!("{file}.{}", self.ending));
            let needs_fence = fs::read_to_string(input)?.starts_with(NEEDS_FENCE);
            if needs_fence && fenced.is_none() {
                fenced = Some(Cluster::launch(cluster.server(), &[data::PRELOADED])?);
            }
            let cluster = fenced.as_ref().filter(|_| needs_fence).unwrap_or(cluster);
            passed &= self.play(cluster, &program, file, accept)?;
        }
        Ok(Counted { passed, tests: files.len() })
    }

    fn play(self, cluster: &Cluster, program: &Path, file: &str, accept: bool) -> Result<bool> {
        let out = workspace::target().join("pgrx-tests").join(self.name).join(file);
        workspace::remove(&out)?;
        fs::create_dir_all(&out)?;
        let expected = self.folder().join("expected").join(format!("{file}.out"));
        let mut command = Command::new(program);
        command
            .arg(format!("--bindir={}", cluster.server().bindir.display()))
            .arg(format!("--host={}", cluster.sockets().display()))
            .arg(format!("--port={PORT}"))
            .arg(format!("--user={SUPERUSER}"))
            .arg(format!("--dbname={}_{file}", self.name))
            .arg("--load-extension=pg_tenancy")
            .arg(format!("--inputdir={}", self.folder().display()))
            .arg(format!("--outputdir={}", out.display()));
        if process::output(Command::new(program).arg("--help"))?.contains("--expecteddir") {
            command.arg(format!("--expecteddir={}", self.folder().display()));
        }
        command.arg(file).stdin(Stdio::null());
        let played = command.output().with_context(|| format!("cannot run {}", program.display()))?;
        if played.status.success() {
            println!("{}/{file} ... {}", self.name, paint("32", "ok"));
            return Ok(true);
        }
        let results = out.join("results").join(format!("{file}.out"));
        if !results.is_file() {
            bail!(
                "{}/{file} was not played: {}{}",
                self.name,
                String::from_utf8_lossy(&played.stdout),
                String::from_utf8_lossy(&played.stderr)
            );
        }
        if accept {
            fs::create_dir_all(self.folder().join("expected"))?;
            fs::copy(&results, &expected).with_context(|| format!("cannot write {}", expected.display()))?;
            println!("{}/{file} ... accepted", self.name);
            say(format_args!("read git diff {} before you commit it", expected.display()));
            return Ok(true);
        }
        println!("{}/{file} ... {}", self.name, paint("31", "FAILED"));
        if expected.is_file() {
            print_diff(&out.join("regression.diffs"))?;
        } else {
            println!("it has no expected/{file}.out; what it says now is {}", results.display());
        }
        println!("to make this the expectation: cargo xtask test --kind {} --accept {file}", self.name);
        Ok(false)
    }
}

fn print_diff(diffs: &Path) -> Result<()> {
    let text = fs::read_to_string(diffs).with_context(|| format!("pg_regress left no {}", diffs.display()))?;
    for line in text.lines() {
        match line.as_bytes().first() {
            Some(b'+') => println!("{}", paint("32", line)),
            Some(b'-') => println!("{}", paint("31", line)),
            _ => println!("{line}"),
        }
    }
    Ok(())
}

/// The stems of the files in `dir` with that ending, in order; none when there is no such folder.
fn stems(dir: &Path, ending: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    let mut stems = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == ending) {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            stems.push(stem.with_context(|| format!("{} is no text", path.display()))?.to_owned());
        }
    }
    stems.sort();
    Ok(stems)
}
