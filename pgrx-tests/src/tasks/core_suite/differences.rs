//! What a test prints differently with us loaded, and the files that explain it.
//!
//! `pgrx-tests/core/<test>.<setting>.diff`, or `<test>.<setting>.<major>.diff` for one major: lines that begin with `#` say why, the rest is
//! the difference, line for line. Only one difference needs no explanation: that lists of the catalog list our objects.

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, progress::say, workspace};

/// A unified diff without names and line numbers.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference(String);

impl Difference {
    /// Between what a test printed without us and with us; `own` are the names of our objects.
    pub fn between(stock: &Path, loaded: &Path, own: &HashSet<String>) -> Result<Self> {
        let (one, other) = (comparable(stock, own)?, comparable(loaded, own)?);
        let mut diff = Command::new("diff");
        diff.arg("-U2").arg(&one).arg(&other);
        let answer = diff.output().with_context(|| format!("cannot run {}", process::shown(&diff)))?;
        match answer.status.code() {
            Some(0 | 1) => Ok(Self(bare(&String::from_utf8_lossy(&answer.stdout)))),
            _ => bail!("{}: {}", process::shown(&diff), String::from_utf8_lossy(&answer.stderr)),
        }
    }

    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes what counts of a result beside it.
fn comparable(result: &Path, own: &HashSet<String>) -> Result<PathBuf> {
    let bytes = fs::read(result).with_context(|| result.display().to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let path = result.with_extension("compared");
    let lines: String = text.lines().filter_map(|line| counted(line, own)).map(|line| line + "\n").collect();
    fs::write(&path, lines).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// A line as it is compared; none when it is a row about an object of ours. Such a row changes a table's width and count
/// of rows, too, so neither counts.
fn counted<'a>(line: &'a str, own: &HashSet<String>) -> Option<Cow<'a, str>> {
    let is_row = line.starts_with(' ') && line.contains(" | ");
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
    if is_row && words.any(|word| own.contains(word)) {
        return None;
    }
    if line.starts_with('(') && (line.ends_with(" rows)") || line.ends_with(" row)")) {
        return Some("(rows)".into());
    }
    let is_head = line.contains(" | ") || line.contains("-+-");
    if !is_head {
        return Some(line.into());
    }
    let mut text = String::with_capacity(line.len());
    for character in line.chars() {
        if !(matches!(character, ' ' | '-') && text.ends_with(character)) {
            text.push(character);
        }
    }
    Some(text.into())
}

/// Line numbers move with every minor version; the lines around stay.
fn bare(diff: &str) -> String {
    let mut text = String::new();
    for line in diff.lines().skip_while(|line| !line.starts_with("@@")) {
        text.push_str(if line.starts_with("@@") { "@@" } else { line });
        text.push('\n');
    }
    text
}

fn folder() -> PathBuf {
    workspace::root().join("pgrx-tests/core")
}

/// Where a test was played: the server's major, and how the library was loaded.
#[derive(Clone, Copy)]
pub struct Place {
    pub major: u32,
    pub setting: &'static str,
}

impl Place {
    /// The file for this major, and that for all of them.
    fn files(self, test: &str) -> [PathBuf; 2] {
        let Self { major, setting } = self;
        [format!("{test}.{setting}.{major}.diff"), format!("{test}.{setting}.diff")].map(|name| folder().join(name))
    }
}

/// The difference that is explained for a test; none when there is no file.
pub fn explained(place: Place, test: &str) -> Result<Difference> {
    for path in place.files(test) {
        if !path.is_file() {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (why, diff): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
        if !why.iter().any(|line| line.len() > UNEXPLAINED.len()) {
            bail!("{} does not say why", path.display());
        }
        return Ok(Difference(diff.iter().map(|line| format!("{line}\n")).collect()));
    }
    Ok(Difference(String::new()))
}

/// What `accept` writes where a person is to say why.
const UNEXPLAINED: &str = "# Why: ";

/// Makes `found` the explained difference, if somebody then explains it.
pub fn accept(place: Place, test: &str, found: &Difference) -> Result<()> {
    if *found == explained(place, test)? {
        return Ok(());
    }
    let [own, common] = place.files(test);
    let path = if own.is_file() { own } else { common };
    if found.is_none() {
        say(format_args!("there is no difference any more: remove {}", path.display()));
        return Ok(());
    }
    fs::create_dir_all(folder())?;
    let known = fs::read_to_string(&path).unwrap_or_default();
    let mut why: String = known.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    if why.is_empty() {
        why = format!("{UNEXPLAINED}\n");
    }
    fs::write(&path, format!("{why}{found}")).with_context(|| path.display().to_string())?;
    say(format_args!("say why in {}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{bare, counted};

    #[test]
    fn rows_about_our_objects_do_not_count_and_an_error_about_them_does() {
        let own = ["ours".to_owned()].into();
        assert_eq!(counted(" 16384 | ours", &own), None);
        assert_eq!(counted(" 16384 | yours", &own).as_deref(), Some(" 16384 | yours"));
        assert_eq!(counted("ERROR:  ours | refuses", &own).as_deref(), Some("ERROR: ours | refuses"));
        assert_eq!(counted("  oid  |   name  ", &own), counted(" oid | name ", &own));
        assert_eq!(counted("-----+------", &own), counted("-------+----", &own));
        assert_eq!(counted("(0 rows)", &own), counted("(1 row)", &own));
    }

    #[test]
    fn names_and_line_numbers_do_not_count() {
        let diff =
            "--- /stock/a.out\t2026-01-01\n+++ /loaded/a.out\t2026-01-02\n@@ -7,3 +7,4 @@\n x\n+@@y\n@@ -9 +9 @@\n-z\n";
        assert_eq!(bare(diff), "@@\n x\n+@@y\n@@\n-z\n");
    }
}
