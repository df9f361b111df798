//! Plays a narrated SQL script through psql, so that a reader sees each statement, its result and its refusal; and
//! checks the telling, so that the demo cannot rot.
//!
//! A script is plain psql input. A comment line at the left margin is narration. A comment `-- refused 42501` says
//! that the next statement is refused with that SQLSTATE; any other error, and a refusal that does not come, is a
//! surprise. A line that begins with `\set ECHO none` is stage work: it is not shown, and must set ECHO back itself.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{progress::paint, server::Server};

/// The scripts of a folder in order.
pub fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("there are no scripts in {}", folder.display()))?;
    let mut scripts = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "sql") {
            scripts.push(path);
        }
    }
    if scripts.is_empty() {
        bail!("there are no scripts in {}", folder.display());
    }
    scripts.sort();
    Ok(scripts)
}

/// psql for a script. The script may call the server's other programs, too (`\! pgbench`), and they must be of its major.
pub fn psql(server: &Server) -> Result<Command> {
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(server.bindir.clone()).chain(std::env::split_paths(&others)))?;
    let mut psql = Command::new(server.bindir.join("psql"));
    psql.env("PATH", path);
    Ok(psql)
}

/// Plays one script with `psql` (aimed at a database) and returns the surprises.
pub fn play(psql: &mut Command, script: &Path, out: &mut dyn Write) -> Result<Vec<String>> {
    let text = fs::read_to_string(script).with_context(|| format!("cannot read {}", script.display()))?;
    // One pipe for both streams keeps an error where it happened; psql flushes the one before it writes the other.
    let (reader, writer) = io::pipe()?;
    let mut child = psql
        .args([
            "--no-psqlrc",
            "--quiet",
            "--echo-all",
            "--set=VERBOSITY=verbose",
            "--pset=pager=off",
            // Wide results fit a terminal.
            "--pset=format=wrapped",
            "--pset=columns=120",
            "--file",
        ])
        .arg(script)
        // So that \i takes files beside the script.
        .current_dir(script.parent().unwrap_or(Path::new(".")))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .context("cannot run psql")?;
    // The command keeps the pipe's writing end open until it is changed; the reader would wait for ever.
    psql.stdout(Stdio::null()).stderr(Stdio::null());
    let mut telling = Telling::new(&text);
    for line in BufReader::new(reader).lines() {
        if let Some(shown) = telling.hear(&line?) {
            writeln!(out, "{shown}")?;
        }
    }
    let status = child.wait()?;
    let mut surprises = telling.end();
    if !status.success() {
        surprises.push(format!("psql ended with {status}"));
    }
    let name = script.file_name().unwrap_or_default().to_string_lossy();
    Ok(surprises.into_iter().map(|surprise| format!("{name}: {surprise}")).collect())
}

const STAGE_WORK: &str = "\\set ECHO none";

const MINUTIAE: [&str; 6] =
    ["LOCATION:  ", "SCHEMA NAME:  ", "TABLE NAME:  ", "COLUMN NAME:  ", "DATATYPE NAME:  ", "CONSTRAINT NAME:  "];

/// Follows psql's output beside the script.
struct Telling<'a> {
    /// What is still to be told.
    script: &'a str,
    /// The SQLSTATE that the story promises next.
    promised: Option<String>,
    surprises: Vec<String>,
    /// The line shown last was empty.
    is_parted: bool,
}

impl<'a> Telling<'a> {
    fn new(script: &'a str) -> Self {
        Self { script, promised: None, surprises: Vec::new(), is_parted: true }
    }

    /// What the reader gets to see of a line of psql's.
    fn hear(&mut self, line: &str) -> Option<String> {
        // psql does not echo empty lines, which part the telling into paragraphs.
        let told = self.script.trim_start_matches('\n');
        let (next, rest) = told.split_once('\n').unwrap_or((told, ""));
        if next == line && !line.is_empty() {
            let starts_paragraph = told.len() < self.script.len() && !self.is_parted;
            self.script = rest;
            if line.starts_with(STAGE_WORK) {
                return None;
            }
            self.is_parted = false;
            let gap = if starts_paragraph { "\n" } else { "" };
            return Some(format!("{gap}{}", self.echo(line)));
        }
        let said = without_position(line);
        // VERBOSITY=verbose brings the SQLSTATE, and these with it: what the message says anyway, and a line of source.
        if MINUTIAE.iter().any(|label| said.starts_with(label)) {
            return None;
        }
        self.is_parted = said.is_empty();
        let complaint = said.strip_prefix("ERROR:  ");
        if let Some(complaint) = complaint {
            let sqlstate = complaint.split(':').next().unwrap_or("");
            match self.promised.take() {
                Some(promised) if promised == sqlstate => {}
                Some(promised) => self.surprises.push(format!("promised {promised}, came {complaint}")),
                None => self.surprises.push(format!("not promised: {complaint}")),
            }
        } else if line.starts_with("psql:") && (said.starts_with("error: ") || said.contains("FATAL:")) {
            self.surprises.push(said.to_owned());
        }
        let is_refusal = ["ERROR:  ", "DETAIL:  ", "HINT:  ", "FATAL:  "].iter().any(|label| said.starts_with(label));
        Some(if is_refusal { paint("31", said) } else { said.to_owned() })
    }

    fn echo(&mut self, line: &str) -> String {
        let Some(comment) = line.strip_prefix("--") else {
            return paint("36", line);
        };
        if let Some(promise) = comment.trim_start().strip_prefix("refused ") {
            self.broken();
            self.promised = promise.split(|c: char| !c.is_ascii_alphanumeric()).next().map(str::to_owned);
        }
        paint("1", comment.strip_prefix(' ').unwrap_or(comment))
    }

    fn broken(&mut self) {
        if let Some(promised) = self.promised.take() {
            self.surprises.push(format!("the refusal {promised} did not come"));
        }
    }

    fn end(mut self) -> Vec<String> {
        self.broken();
        self.surprises
    }
}

/// `psql:file:12: ERROR:  …` without its position.
fn without_position(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("psql:") else {
        return line;
    };
    // The file's name may have anything in it, colons too; the line number ends the position.
    rest.match_indices(": ")
        .find(|(at, _)| rest[..*at].rsplit(':').next().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())))
        .map_or(line, |(at, found)| &rest[at + found.len()..])
}

#[cfg(test)]
mod tests {
    use super::{Telling, without_position};

    fn surprises(script: &str, output: &[&str]) -> Vec<String> {
        let mut telling = Telling::new(script);
        for line in output {
            telling.hear(line);
        }
        telling.end()
    }

    const SCRIPT: &str = "-- refused 42501: forged\nINSERT;\nSELECT;";

    #[test]
    fn a_promised_refusal_is_no_surprise() {
        let output = ["-- refused 42501: forged", "INSERT;", "psql:a.sql:2: ERROR:  42501: no", "SELECT;"];
        assert!(surprises(SCRIPT, &output).is_empty());
    }

    #[test]
    fn another_error_a_missing_one_and_one_too_many_are_surprises() {
        let promise = "-- refused 42501: forged";
        assert_eq!(surprises(SCRIPT, &[promise, "INSERT;", "ERROR:  42P01: no table"]).len(), 1);
        assert_eq!(surprises(SCRIPT, &[promise, "INSERT;", "SELECT;"]).len(), 1);
        assert_eq!(surprises("SELECT;", &["SELECT;", "ERROR:  42501: no"]).len(), 1);
        assert_eq!(surprises("\\c nobody", &["\\c nobody", "psql:a.sql:1: error: FATAL:  no role"]).len(), 1);
    }

    #[test]
    fn empty_lines_of_the_script_part_its_paragraphs_and_stage_work_is_hidden() {
        let script = "SELECT 1;\n\n-- Next.\n\\set ECHO none \\i x \\set ECHO all\n\nSELECT 2;\n";
        let mut telling = Telling::new(script);
        let mut shown = |line| telling.hear(line);
        assert!(!shown("SELECT 1;").unwrap().contains('\n'));
        assert!(shown("-- Next.").unwrap().starts_with('\n'));
        assert_eq!(shown("\\set ECHO none \\i x \\set ECHO all"), None);
        assert!(shown("SELECT 2;").unwrap().starts_with('\n'));
        assert_eq!(shown("LOCATION:  here"), None);
    }

    #[test]
    fn the_position_is_cut_off_whatever_the_file_is_called() {
        assert_eq!(without_position("psql:/a b/c: d.sql:12: ERROR:  x: y"), "ERROR:  x: y");
        assert_eq!(without_position("HINT:  psql: no"), "HINT:  psql: no");
    }
}
