//! Runs cargo's tests, shows what they say, and counts them: a filter that matches nothing must not look like success.

use std::{
    io::{BufRead, BufReader, IsTerminal, Write},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::process::shown;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub passed: bool,
    pub tests: usize,
}

pub fn run(command: &mut Command) -> Result<Counted> {
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    let mut tests = 0;
    let mut stdout = std::io::stdout().lock();
    for line in BufReader::new(child.stdout.take().context("stdout was asked for")?).split(b'\n') {
        let line = line?;
        stdout.write_all(&line)?;
        stdout.write_all(b"\n")?;
        tests += ran(&String::from_utf8_lossy(&line));
    }
    Ok(Counted { passed: child.wait()?.success(), tests })
}

/// The tests that one of libtest's closing lines speaks of.
fn ran(line: &str) -> usize {
    let Some(at) = line.find("test result:") else {
        return 0;
    };
    let count = |word: &str| -> usize {
        let before = line[at..].split(word).next().unwrap_or("");
        before.split_whitespace().next_back().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    count(" passed;") + count(" failed;")
}

#[cfg(test)]
mod tests {
    use super::ran;

    #[test]
    fn passed_and_failed_tests_are_counted_but_not_those_left_out() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 40 filtered out; finished in 0.1s";
        assert_eq!(ran(line), 15);
        assert_eq!(ran("running 12 tests"), 0);
    }
}
